// Completes every grant of a public client: node client.js ISSUER CLIENT_ID REDIRECT_URI
// All it knows of the provider is its discovery document. Prints one JSON object per step, and reads
// where the browser was sent back to.
import readline from "node:readline/promises";
import * as client from "openid-client";

const [issuer, clientId, redirect_uri] = process.argv.slice(2);
const scope = "openid email profile predict";
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const print = (step) => console.log(JSON.stringify(step));

const config = await client.discovery(new URL(issuer), clientId, undefined, client.None(), {
  execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
});

const pkceCodeVerifier = client.randomPKCECodeVerifier();
const expectedState = client.randomState();
const expectedNonce = client.randomNonce();
const url = client.buildAuthorizationUrl(config, {
  redirect_uri,
  scope,
  code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
  code_challenge_method: "S256",
  state: expectedState,
  nonce: expectedNonce,
});
print({ url });
const returned = new URL((await lines.next()).value);
const checks = { pkceCodeVerifier, expectedState, expectedNonce, idTokenExpected: true };
const tokens = await client.authorizationCodeGrant(config, returned, checks);
const claims = tokens.claims();
const info = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
print({ claims, info });

const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
print({ refreshed: await client.fetchUserInfo(config, refreshed.access_token, claims.sub) });

// A code that is used twice ends what it began.
const reused = await client
  .authorizationCodeGrant(config, returned, checks)
  .then(() => "accepted", (error) => error.error);
const ended = await client
  .refreshTokenGrant(config, refreshed.refresh_token)
  .then(() => "accepted", (error) => error.error);
print({ reused, ended });

const device = await client.initiateDeviceAuthorization(config, { scope });
print({ url: device.verification_uri_complete });
const polled = await client.pollDeviceAuthorizationGrant(config, device);
await client.tokenRevocation(config, polled.refresh_token);
const revoked = await client
  .refreshTokenGrant(config, polled.refresh_token)
  .then(() => "accepted", (error) => error.error);
const end = client.buildEndSessionUrl(config, { id_token_hint: polled.id_token });
print({ claims: polled.claims(), revoked, url: end.href });
process.exit(0);
