// npm's x402 clients pay a gateway: each request of a version, a scheme and an endpoint, as one line.
// node x402_clients.mjs URL

import { wrapFetchWithPayment as firstVersion } from "x402-fetch";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

const URL_ = process.argv[2];
const signer = () => privateKeyToAccount(generatePrivateKey());
const network = "eip155:8453";
const chat = { model: "hash", messages: [{ role: "user", content: "SAY:hello" }], max_tokens: 20 };
const bodies = {
  chat: ["/v1/chat/completions", chat],
  stream: ["/v1/chat/completions", { ...chat, stream: true }],
  completion: ["/v1/completions", { model: "hash", prompt: "SAY:hello", max_tokens: 20 }],
};
const clients = {
  "v2 exact": () => wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network, client: new ExactEvmScheme(signer()) }] }),
  "v2 upto": () => wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network, client: new UptoEvmScheme(signer()) }] }),
  "v1 exact": () => firstVersion(fetch, signer(), 10n ** 12n),
};

for (const [who, client] of Object.entries(clients))
  for (const [what, [path, body]] of Object.entries(bodies)) {
    const told = { who, what };
    try {
      const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
      const found = await client()(`${URL_}${path}`, options);
      told.status = found.status;
      const receipt = found.headers.get("payment-response") ?? found.headers.get("x-payment-response");
      told.receipt = receipt && decodePaymentResponseHeader(receipt);
      told.text = await found.text();
    } catch (error) {
      told.error = String(error?.stack ?? error);
    }
    console.log(JSON.stringify(told));
  }
