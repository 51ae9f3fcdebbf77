// Streams text from seqserve into the page: by Connect or gRPC-Web with connect-web, or by JSON with fetch alone.
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

const element = (id) => document.getElementById(id);

// The descriptor set that Envoy reads describes every message and service: no code is generated.
const descriptors = await fetch("../seqserve.binpb").then((answer) => answer.arrayBuffer());
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, new Uint8Array(descriptors)));

const authorization = () => (element("token").value ? { authorization: `Bearer ${element("token").value}` } : {});

function client(service) {
  const options = { baseUrl: element("server").value, useBinaryFormat: true };
  const transport =
    element("protocol").value === "grpc-web" ? createGrpcWebTransport(options) : createConnectTransport(options);
  return createClient(registry.getService(`seqserve.v1.${service}`), transport);
}

async function postJson(method, request, signal) {
  const answer = await fetch(`${element("server").value}/seqserve.v1.${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...authorization() },
    body: JSON.stringify(request),
    signal,
  });
  if (!answer.ok) {
    const text = await answer.text();
    // What Envoy itself refuses is a line of text; what seqserve refuses is a google.rpc.Status.
    const isStatus = answer.headers.get("content-type")?.startsWith("application/json");
    throw isStatus ? new StatusError(JSON.parse(text)) : new Error(`HTTP ${answer.status}: ${text}`);
  }
  return answer;
}

class StatusError extends Error {
  constructor(status) {
    super(`[${Code[status.code]}] ${status.message}`);
    this.details = status.details ?? [];
  }
}

// The messages of a stream are lines of JSON; a line may come in several parts.
async function* jsonLines(answer) {
  let rest = "";
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + part).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
  if (rest) yield JSON.parse(rest);
}

async function* generate(request, signal) {
  if (element("protocol").value === "json") {
    let last;
    for await (last of jsonLines(await postJson("TextGeneration/Generate", request, signal))) yield last;
    // An error after the first message is not in the body: a stream that has no last message has failed.
    if (!last || last.finishReason === "FINISH_REASON_UNSPECIFIED") throw new Error("the stream broke off");
  } else {
    yield* client("TextGeneration").generate(request, { headers: authorization(), signal });
  }
}

async function models() {
  if (element("protocol").value === "json") return (await postJson("Models/List", {})).json();
  return client("Models").list({}, { headers: authorization() });
}

// Envoy names the type of a detail as google.protobuf.Any does, with a host before it, so that findDetails finds none.
function details(error) {
  if (error instanceof StatusError) return error.details;
  return ConnectError.from(error).details.flatMap(({ type, value }) => {
    const schema = registry.getMessage(type.split("/").pop());
    return schema ? [fromBinary(schema, value)] : [];
  });
}

function show(error) {
  const lines = details(error).flatMap((one) => [
    ...(one.reason ? [`reason: ${one.reason}`] : []),
    ...(one.metadata?.request_id ? [`request id: ${one.metadata.request_id}`] : []),
    ...(one.fieldViolations ?? []).map((violation) => `field: ${violation.field}`),
  ]);
  element("error").textContent = [error.message, ...lines].join("\n");
}

let running;

async function run(what) {
  running = new AbortController();
  element("error").textContent = "";
  element("state").textContent = "running";
  element("write").disabled = element("list").disabled = true;
  element("stop").disabled = false;
  try {
    await what(running.signal);
    element("state").textContent = "finished";
  } catch (error) {
    element("state").textContent = running.signal.aborted ? "stopped" : "failed";
    if (!running.signal.aborted) show(error);
  }
  element("write").disabled = element("list").disabled = false;
  element("stop").disabled = true;
}

async function write(signal) {
  element("text").textContent = element("prompt").value;
  const request = {
    model: element("model").value,
    prompt: element("prompt").value,
    maxTokens: Number(element("tokens").value),
    // 64 bits: a BigInt for the library, digits in JSON.
    ...(element("seed").value && {
      seed: element("protocol").value === "json" ? element("seed").value : BigInt(element("seed").value),
    }),
  };
  for await (const piece of generate(request, signal)) element("text").append(piece.text);
}

async function list() {
  const { models: found } = await models();
  element("text").textContent = found.map((model) => `${model.name} ${model.version}: ${model.task}`).join("\n");
  const writers = found.filter((model) => model.task === "text-generation");
  element("models").replaceChildren(...writers.map((model) => new Option(model.name)));
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(write);
});
element("stop").addEventListener("click", () => running.abort());
element("list").addEventListener("click", () => run(list));
element("state").textContent = "ready";
