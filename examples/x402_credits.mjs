// npm's x402 clients pay a Baton gateway in credits, out of a peer that runs on this machine.
//
//     import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
//     import { creditSchemes } from "./x402_credits.mjs";
//
//     const schemes = creditSchemes({ payMax: 0.5 });
//     const paying = wrapFetchWithPaymentFromConfig(fetch, { schemes });
//     await paying("http://127.0.0.1:8000/v1/chat/completions", { method: "POST", … });
//
// The keys stay with the peer (python -m node join): it is asked over its control socket for what
// shows a payment, as our Python client does. Nothing is needed besides the x402 client itself.

import { connect } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";

const MILLIONTHS = 1_000_000;
const PAY_S = 90;
const ANSWER_BYTES_MAX = 16 << 20;
const NETWORKS = "baton:*";

/** The schemes of a client: `batch-settlement` by vouchers, and `exact` by a transfer for each. */
export function creditSchemes({ state = join(homedir(), ".baton"), payMax, only } = {}) {
  const purse = new Purse(join(state, "control.sock"), payMax);
  const made = { "batch-settlement": new Vouchers(purse), exact: new Transfers(purse) };
  return Object.values(made)
    .filter((it) => !only || it.scheme === only)
    .map((client) => ({ network: NETWORKS, client }));
}

/** What may be spent by these schemes together, in credits, and the peer whose account pays. */
class Purse {
  constructor(socket, payMax) {
    if (!(payMax > 0)) throw new Error("say how many credits may be paid together: payMax");
    this.socket = socket;
    this.left = Math.floor(payMax * MILLIONTHS);
  }

  /** What shows that an offer is paid. It counts before it is known to be made. */
  async pay(offer, amount, more = {}) {
    if (amount > this.left)
      throw new Error(`the gateway asks for ${amount} millionths, and ${this.left} may be paid`);
    const most = this.left;
    this.left -= amount;
    return ask(this.socket, "pay_offer", { offer, most, ...more });
  }
}

class Scheme {
  constructor(purse) {
    this.purse = purse;
  }

  /** Clients bound what they pay by the decimals of an asset that its scheme knows. */
  findDefaultAsset(asset) {
    return asset === "credits" ? { asset, decimals: 6, symbol: "credits" } : undefined;
  }
}

class Transfers extends Scheme {
  scheme = "exact";

  async createPaymentPayload(x402Version, requirements) {
    const { offer, amount } = read(requirements);
    const { settlement, claim } = await this.purse.pay(offer, amount);
    const payload = { settlement: base64(settlement), claim: base64(claim) };
    return named(x402Version, requirements, payload);
  }
}

class Vouchers extends Scheme {
  scheme = "batch-settlement";
  // By voucher, what its request may cost; what requests came to, for the peer; what a gateway
  // says of a channel that it knows more of than the peer.
  sent = new Map();
  drawn = [];
  told = {};

  async createPaymentPayload(x402Version, requirements) {
    const { offer, amount } = read(requirements);
    const more = { drawn: this.drawn.splice(0), ...this.told };
    this.told = {};
    const shown = await this.purse.pay(offer, amount, more);
    this.purse.left -= shown.recovered;
    const payload = {
      channel: shown.channel,
      voucher: base64(shown.voucher),
      settlement: base64(shown.settlement),
    };
    this.sent.set(payload.voucher, [shown.channel, shown.total, amount]);
    return named(x402Version, requirements, payload);
  }

  // A whole answer says what it came to. Of a stream it is not known here: all of it counts.
  schemeHooks = {
    onPaymentResponse: async ({ paymentPayload, settleResponse, paymentRequired }) => {
      const { voucher } = paymentPayload.payload;
      const sent = this.sent.get(voucher);
      if (sent === undefined) return;
      this.sent.delete(voucher);
      const [channel, total, amount] = sent;
      const known = paymentRequired?.extensions?.channel;
      const unused = paymentRequired !== undefined && known?.used !== true;
      const cost = unused ? 0 : Math.min(amount, Number(settleResponse?.amount ?? amount));
      this.purse.left += amount - cost;
      this.drawn.push([channel, total, cost]);
      if (known?.voucher === undefined) return;
      this.told = { told: { charged: known.charged, voucher: known.voucher } };
      return { recovered: true };
    },
  };
}

/** An offer of either version of x402 as the peer wants it. */
function read(requirements) {
  const text = requirements.amount ?? requirements.maxAmountRequired;
  const amount = Number(text);
  if (!Number.isSafeInteger(amount) || amount < 1) throw new Error(`${text} is no amount`);
  const { scheme, network, asset, payTo } = requirements;
  return { amount, offer: { amount: String(amount), asset, network, payTo, scheme } };
}

/** A payment; that of the first version names its scheme and network itself. */
function named(x402Version, { scheme, network }, payload) {
  return x402Version === 1 ? { x402Version, scheme, network, payload } : { x402Version, payload };
}

const base64 = (bytes) => Buffer.from(bytes).toString("base64");

/** What the peer answers to a command: four bytes of length, then a value, either way. */
function ask(socket, command, values) {
  return new Promise((resolve, reject) => {
    const stream = connect(socket);
    const failed = (why) => {
      stream.destroy();
      reject(new Error(why));
    };
    let found = Buffer.alloc(0);
    stream.setTimeout(PAY_S * 1000, () => failed("the peer took too long to pay"));
    stream.on("error", (error) => failed(`no peer at ${socket} (python -m node join): ${error.message}`));
    stream.on("end", () => failed("the peer closed the connection"));
    stream.on("connect", () => {
      const data = packed({ arguments: values, command });
      const head = Buffer.alloc(4);
      head.writeUInt32BE(data.length);
      stream.write(Buffer.concat([head, data]));
    });
    stream.on("data", (part) => {
      found = Buffer.concat([found, part]);
      while (found.length >= 4) {
        const size = found.readUInt32BE(0);
        if (size > ANSWER_BYTES_MAX) return failed("the peer's answer is too long");
        if (found.length < 4 + size) return;
        const value = new Reader(found.subarray(4, 4 + size)).value();
        found = found.subarray(4 + size);
        if (value.error) return failed(`${value.error.message} ${value.error.todo ?? ""}`.trim());
        if (value.result) {
          stream.destroy();
          return resolve(value.result);
        }
      }
    });
  });
}

// MessagePack, as much of it as commands have. Names of a map stand in their order.

function packed(value) {
  if (typeof value === "string") {
    const data = Buffer.from(value);
    return Buffer.concat([sized(data.length, 0xa0, 31, 0xd9), data]);
  }
  if (typeof value === "number") return number(value);
  if (Array.isArray(value))
    return Buffer.concat([sized(value.length, 0x90, 15, 0xdc), ...value.map(packed)]);
  const names = Object.keys(value).sort();
  const items = names.flatMap((it) => [packed(it), packed(value[it])]);
  return Buffer.concat([sized(names.length, 0x80, 15, 0xde), ...items]);
}

/** The head of a text, a list or a map; lists and maps have no form of one byte beyond the short. */
function sized(count, short, most, long) {
  if (count <= most) return Buffer.from([short | count]);
  if (long === 0xd9 && count < 256) return Buffer.from([long, count]);
  if (count >= 65536) throw new Error("too long for a command");
  const code = long === 0xd9 ? 0xda : long;
  return Buffer.from([code, count >> 8, count & 255]);
}

function number(value) {
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${value} is no whole number`);
  if (value < 128) return Buffer.from([value]);
  const [code, bytes] = value < 256 ? [0xcc, 1] : value < 65536 ? [0xcd, 2] : value < 2 ** 32 ? [0xce, 4] : [0xcf, 8];
  const data = Buffer.alloc(1 + bytes, code);
  if (bytes === 8) data.writeBigUInt64BE(BigInt(value), 1);
  else data.writeUIntBE(value, 1, bytes);
  return data;
}

class Reader {
  at = 0;

  constructor(data) {
    this.data = data;
  }

  value() {
    const code = this.unsigned(1);
    if (code < 0x80) return code;
    if (code < 0x90) return this.map(code & 15);
    if (code < 0xa0) return this.list(code & 15);
    if (code < 0xc0) return this.bytes(code & 31).toString();
    if (code >= 0xe0) return code - 256;
    switch (code) {
      case 0xc0:
        return null;
      case 0xc2:
      case 0xc3:
        return code === 0xc3;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.bytes(this.unsigned(1 << (code - 0xc4)));
      case 0xcb:
        return this.bytes(8).readDoubleBE(0);
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.unsigned(1 << (code - 0xcc));
      case 0xcf:
        return Number(this.bytes(8).readBigUInt64BE(0));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.bytes(this.unsigned(1 << (code - 0xd9))).toString();
      case 0xdc:
      case 0xdd:
        return this.list(this.unsigned(code === 0xdc ? 2 : 4));
      case 0xde:
      case 0xdf:
        return this.map(this.unsigned(code === 0xde ? 2 : 4));
    }
    throw new Error("the peer's answer cannot be read");
  }

  unsigned(bytes) {
    return this.bytes(bytes).readUIntBE(0, bytes);
  }

  bytes(count) {
    if (this.at + count > this.data.length) throw new Error("the peer's answer is too short");
    this.at += count;
    return this.data.subarray(this.at - count, this.at);
  }

  list(count) {
    return Array.from({ length: count }, () => this.value());
  }

  map(count) {
    return Object.fromEntries(Array.from({ length: count }, () => [this.value(), this.value()]));
  }
}
