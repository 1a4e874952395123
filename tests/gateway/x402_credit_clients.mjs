// npm's x402 clients pay a gateway in credits: each version, scheme and endpoint, as one line.
// node x402_credit_clients.mjs URL STATE

import { wrapFetchWithPayment, decodePaymentResponseHeader, x402Client } from "@x402/fetch";
import { creditSchemes } from "./x402_credits.mjs";

const [URL_, state] = process.argv.slice(2);
const chat = { model: "hash", messages: [{ role: "user", content: "SAY:hello" }], max_tokens: 20 };
const bodies = {
  chat: ["/v1/chat/completions", chat],
  stream: ["/v1/chat/completions", { ...chat, stream: true }],
  completion: ["/v1/completions", { model: "hash", prompt: "SAY:hello", max_tokens: 20 }],
};

/** A client of the first version never sees what the second says in a header. */
async function asFirstVersion(...asked) {
  const found = await fetch(...asked);
  const headers = new Headers(found.headers);
  headers.delete("payment-required");
  return new Response(found.body, { status: found.status, headers });
}

for (const only of ["batch-settlement", "exact"])
  for (const version of [2, 1]) {
    const client = new x402Client();
    for (const { network, client: scheme } of creditSchemes({ state, payMax: 1, only }))
      if (version === 2) client.register(network, scheme);
      else client.registerV1(network, scheme);
    const paying = wrapFetchWithPayment(version === 2 ? fetch : asFirstVersion, client);
    for (const [what, [path, body]] of Object.entries(bodies)) {
      const told = { who: `v${version} ${only}`, what };
      try {
        const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
        const found = await paying(`${URL_}${path}`, options);
        told.status = found.status;
        const receipt = found.headers.get("payment-response") ?? found.headers.get("x-payment-response");
        told.receipt = receipt && decodePaymentResponseHeader(receipt);
        told.text = await found.text();
      } catch (error) {
        told.error = String(error?.stack ?? error);
      }
      console.log(JSON.stringify(told));
    }
  }
