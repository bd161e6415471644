// Calls a real service with the compiled client: node call.js KEY URL ROW
import { connect } from "./index.js";

declare const process: { argv: string[] };

const [key = "", url = "", row = "[]"] = process.argv.slice(2);
const tollgate = await connect(key, url);

const { data, response } = await tollgate.inference.POST("/v1/models/{model}:predict", {
  params: { path: { model: "wine" }, header: { "idempotency-key": "once" } },
  body: { instances: [JSON.parse(row) as number[]], parameters: { probabilities: true } },
});
const balance = await tollgate.billing.GET("/balance");
const missing = await tollgate.inference.GET("/v1/models/{model}", { params: { path: { model: "wines" } } });

console.log(
  JSON.stringify({
    predictions: data?.predictions,
    amount: response.headers.get("x-usage-amount"),
    account: balance.data?.account,
    missing: missing.response.status,
  }),
);
