/** Typed clients of Tollgate's services; every path, parameter and answer is from their OpenAPI documents. */

import createClient, { type Client } from "openapi-fetch";

import type { paths as AuthPaths } from "./generated/auth.js";
import type { paths as BillingPaths } from "./generated/billing.js";
import type { paths as InferencePaths } from "./generated/inference.js";

export type { AuthPaths, BillingPaths, InferencePaths };

/** A client for each service. */
export interface Tollgate {
  auth: Client<AuthPaths>;
  inference: Client<InferencePaths>;
  billing: Client<BillingPaths>;
}

/** The public addresses of the services; null is unknown. */
interface Addresses {
  issuer: string;
  inference: string | null;
  billing: string | null;
}

/**
 * Find the services and return a client for each.
 *
 * @param apiKey - of the account that pays.
 * @param baseUrl - the address of any of the services; one that is unknown is assumed to be there, too.
 * @throws Error if the service does not answer, or an address is not https although `baseUrl` is.
 */
export async function connect(apiKey: string, baseUrl = "http://127.0.0.1:8002"): Promise<Tollgate> {
  const base = baseUrl.replace(/\/+$/, "");
  const found = await fetch(`${base}/.well-known/tollgate`);
  if (!found.ok) {
    throw new Error(`${base} answered ${found.status}; is it a service of Tollgate?`);
  }
  const addresses = (await found.json()) as Addresses;

  function optionsFor(address: string | null) {
    const url = address ?? base;
    if (base.startsWith("https:") && !url.startsWith("https:")) {
      throw new Error(`The address ${url} is not https like the client's.`);
    }
    return { baseUrl: url, headers: { Authorization: `Bearer ${apiKey}` } };
  }

  return {
    auth: createClient<AuthPaths>(optionsFor(addresses.issuer)),
    inference: createClient<InferencePaths>(optionsFor(addresses.inference)),
    billing: createClient<BillingPaths>(optionsFor(addresses.billing)),
  };
}
