// A client of seqserve on @grpc/grpc-js: every kind of call, once.
//
//     npm install
//     node client.mjs [ADDRESS [CA_FILE TOKEN]]
//
// ADDRESS is 127.0.0.1:50051 unless given. With CA_FILE the connection is encrypted, and TOKEN goes with each call.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address = "127.0.0.1:50051", caFile, token] = process.argv.slice(2);

// [connect]
// Whole numbers of 64 bits are text, since numbers of JavaScript hold 53 bits: a seed has 64.
const protos = loader.loadSync(
  [
    "seqserve/v1/text_generation.proto",
    "seqserve/v1/text_classification.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
  ],
  { includeDirs: [fileURLToPath(new URL("../../../protos", import.meta.url))], longs: String, enums: String, defaults: true },
);
const { TextGeneration, TextClassification } = grpc.loadPackageDefinition(protos).seqserve.v1;

// gRPC repeats a call that no message has come of: at once, later, or when the server asks for it.
const serviceConfig = {
  methodConfig: [
    {
      name: [{ service: "seqserve.v1.TextGeneration" }, { service: "seqserve.v1.TextClassification" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};
const options = {
  "grpc.service_config": JSON.stringify(serviceConfig),
  "grpc.keepalive_time_ms": 30_000, // the server closes connections that ping more often than every 10 s
  "grpc.keepalive_timeout_ms": 10_000,
};

function makeCredentials() {
  if (!caFile) return grpc.credentials.createInsecure();
  const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    done(null, metadata);
  });
  return grpc.credentials.combineChannelCredentials(grpc.credentials.createSsl(readFileSync(caFile)), bearer);
}

const credentials = makeCredentials();
const generation = new TextGeneration(address, credentials, options);
const classification = new TextClassification(address, credentials, options);
const inSeconds = (seconds) => ({ deadline: Date.now() + 1000 * seconds });
// [end]

// [unary]
function classify(request) {
  return new Promise((resolve, reject) => {
    classification.classify(request, inSeconds(10), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function showUnary() {
  const { results } = await classify({ model: "sentiment", texts: ["A moving, funny film."] });
  console.log(results[0].label, results[0].probability);
}
// [end]

// [streaming]
async function showStreaming() {
  const seed = "18446744073709551557"; // above 2^53, and as text exact
  const pieces = generation.generate({ model: "charlm", prompt: "ROMEO:", maxTokens: 60, seed }, inSeconds(10));
  let text = "";
  let last;
  for await (const piece of pieces) {
    text += piece.text;
    last = piece;
  }
  console.log(text);
  console.log(last.seed, last.finishReason, last.usage.generatedTokens);
}
// [end]

// [two-way]
async function showTwoWayStream() {
  const texts = { good: "A moving, funny film.", bad: "Dull from start to end.", none: "" };
  const stream = classification.classifyStream(inSeconds(10));
  for (const [id, text] of Object.entries(texts)) {
    stream.write({ id, model: "sentiment", texts: [text] });
  }
  stream.end();
  // Answers come as they are ready. The error of one request has its id, and the others go on.
  const lines = [];
  for await (const { id, error, results } of stream) {
    lines.push(error ? `${id} ${grpc.status[error.code]}` : `${id} ${results[0].label} ${results[0].probability}`);
  }
  console.log(lines.sort().join("\n"));
}
// [end]

// [cancel]
async function showCancel() {
  const pieces = generation.generate({ model: "charlm", prompt: "ROMEO:", maxTokens: 5000 }, inSeconds(60));
  try {
    for await (const piece of pieces) {
      if (piece.text) pieces.cancel(); // the server frees the slot at its next tick
    }
  } catch (error) {
    console.log(grpc.status[error.code]);
  }
}
// [end]

// [errors]
// The details of an error: ErrorInfo, BadRequest, RetryInfo, by the names of their types.
function detailsOf(error) {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  const { details } = packed ? protos["google.rpc.Status"].deserialize(packed) : { details: [] };
  const named = details.map((detail) => {
    const name = detail.type_url.split("/")[1];
    return [name.replace("google.rpc.", ""), protos[name].deserialize(detail.value)];
  });
  return Object.fromEntries(named);
}

async function showErrors() {
  try {
    await classify({ model: "sentiment", texts: ["good", ""] });
  } catch (error) {
    const { ErrorInfo, BadRequest } = detailsOf(error);
    const [{ field, description }] = BadRequest.fieldViolations;
    console.log(grpc.status[error.code], ErrorInfo.reason);
    console.log(`${field}: ${description}`);
  }
}
// [end]

// [deadline]
async function showDeadline() {
  const pieces = generation.generate({ model: "charlm", prompt: "ROMEO:", maxTokens: 5000 }, inSeconds(0.001));
  try {
    for await (const piece of pieces) process.stdout.write(piece.text);
  } catch (error) {
    console.log(grpc.status[error.code]);
  }
}
// [end]

// [retry]
// An overloaded server says when to come back. The service config repeats a call so at most five times.
async function patiently(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const { RetryInfo } = detailsOf(error);
      if (!RetryInfo) throw error;
      const { seconds, nanos } = RetryInfo.retryDelay;
      await sleep(1000 * Number(seconds) + nanos / 1e6);
    }
  }
}

async function showRetries() {
  const texts = Array.from({ length: 64 }, (_, number) => `Film number ${number} is good.`);
  const answers = await Promise.all(
    texts.map((text) => patiently(() => classify({ model: "sentiment", texts: [text] }))),
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
