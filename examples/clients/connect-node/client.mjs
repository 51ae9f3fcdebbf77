// A client of seqserve on connect-node's gRPC transport: every kind of call, once.
//
//     npm install
//     npm run generate
//     node client.mjs [ADDRESS [CA_FILE TOKEN]]
//
// ADDRESS is 127.0.0.1:50051 unless given. With CA_FILE the connection is encrypted, and TOKEN goes with each call.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { TextClassification } from "./gen/seqserve/v1/text_classification_pb.js";
import { FinishReasonSchema, TextGeneration } from "./gen/seqserve/v1/text_generation_pb.js";

const [address = "127.0.0.1:50051", caFile, token] = process.argv.slice(2);

// [connect]
// Connect has no service config: interceptors do what its retryPolicy does. This one repeats calls that have one
// answer, when an overloaded server asks for it, or a few times when nothing answers.
const retry = (next) => async (request) => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request);
    } catch (error) {
      const delay = request.stream ? undefined : delayBeforeRetry(ConnectError.from(error), attempt);
      if (delay === undefined) throw error;
      await sleep(delay, undefined, { signal: request.signal });
    }
  }
};

function delayBeforeRetry(error, attempt) {
  const [info] = error.findDetails(RetryInfoSchema);
  if (info) return 1000 * Number(info.retryDelay.seconds) + info.retryDelay.nanos / 1e6;
  return error.code === Code.Unavailable && attempt < 5 ? 100 * 2 ** attempt * Math.random() : undefined;
}

const authorize = (next) => (request) => {
  if (token) request.header.set("authorization", `Bearer ${token}`);
  return next(request);
};

const transport = createGrpcTransport({
  baseUrl: `${caFile ? "https" : "http"}://${address}`,
  nodeOptions: caFile ? { ca: readFileSync(caFile) } : {},
  interceptors: [retry, authorize],
  pingIntervalMs: 30_000, // the server closes connections that ping more often than every 10 s
  pingTimeoutMs: 10_000,
});
const generation = createClient(TextGeneration, transport);
const classification = createClient(TextClassification, transport);
// [end]

// Names of codes as every language has them.
const nameOf = (code) =>
  ({ [Code.Canceled]: "CANCELLED", [Code.InvalidArgument]: "INVALID_ARGUMENT", [Code.DeadlineExceeded]: "DEADLINE_EXCEEDED" })[code] ?? Code[code];

// [unary]
async function showUnary() {
  const request = { model: "sentiment", texts: ["A moving, funny film."] };
  const { results } = await classification.classify(request, { timeoutMs: 10_000 });
  console.log(results[0].label, results[0].probability);
}
// [end]

// [streaming]
async function showStreaming() {
  const seed = 18446744073709551557n; // all 64 bits count, and a bigint has them
  const request = { model: "charlm", prompt: "ROMEO:", maxTokens: 60, seed };
  let text = "";
  let last;
  for await (const piece of generation.generate(request, { timeoutMs: 10_000 })) {
    text += piece.text;
    last = piece;
  }
  console.log(text);
  console.log(`${last.seed} ${FinishReasonSchema.value[last.finishReason].name} ${last.usage.generatedTokens}`);
}
// [end]

// [two-way]
async function* requests() {
  const texts = { good: "A moving, funny film.", bad: "Dull from start to end.", none: "" };
  for (const [id, text] of Object.entries(texts)) {
    yield { id, model: "sentiment", texts: [text] };
  }
}

async function showTwoWayStream() {
  // Answers come as they are ready. The error of one request has its id, and the others go on.
  const lines = [];
  for await (const { id, error, results } of classification.classifyStream(requests(), { timeoutMs: 10_000 })) {
    lines.push(error ? `${id} ${nameOf(error.code)}` : `${id} ${results[0].label} ${results[0].probability}`);
  }
  console.log(lines.sort().join("\n"));
}
// [end]

// [cancel]
async function showCancel() {
  const controller = new AbortController();
  const options = { timeoutMs: 60_000, signal: controller.signal };
  try {
    for await (const piece of generation.generate({ model: "charlm", prompt: "ROMEO:", maxTokens: 5000 }, options)) {
      if (piece.text) controller.abort(); // the server frees the slot at its next tick
    }
  } catch (error) {
    console.log(nameOf(ConnectError.from(error).code));
  }
}
// [end]

// [errors]
async function showErrors() {
  try {
    await classification.classify({ model: "sentiment", texts: ["good", ""] }, { timeoutMs: 10_000 });
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    const [info] = error.findDetails(ErrorInfoSchema);
    const [{ fieldViolations }] = error.findDetails(BadRequestSchema);
    console.log(nameOf(error.code), info.reason);
    for (const { field, description } of fieldViolations) console.log(`${field}: ${description}`);
  }
}
// [end]

// [deadline]
async function showDeadline() {
  const request = { model: "charlm", prompt: "ROMEO:", maxTokens: 5000 };
  try {
    for await (const piece of generation.generate(request, { timeoutMs: 1 })) process.stdout.write(piece.text);
  } catch (error) {
    console.log(nameOf(ConnectError.from(error).code));
  }
}
// [end]

// [retry]
async function showRetries() {
  const texts = Array.from({ length: 64 }, (_, number) => `Film number ${number} is good.`);
  const answers = await Promise.all(
    texts.map((text) => classification.classify({ model: "sentiment", texts: [text] }, { timeoutMs: 60_000 })),
  );
  console.log(answers.length, "answered");
}
// [end]

const shown = {
  unary: showUnary,
  streaming: showStreaming,
  "two-way stream": showTwoWayStream,
  cancel: showCancel,
  errors: showErrors,
  deadline: showDeadline,
  retries: showRetries,
};
for (const [name, show] of Object.entries(shown)) {
  console.log(`== ${name}`);
  await show();
}
