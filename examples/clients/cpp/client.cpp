// A client of seqserve in C++: every kind of call, once. CMakeLists.txt says how it is built.
//
//     build/client [ADDRESS [CA_FILE TOKEN]]
//
// ADDRESS is 127.0.0.1:50051 unless given. With CA_FILE the connection is encrypted, and TOKEN goes with each call.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "seqserve/v1/text_classification.grpc.pb.h"
#include "seqserve/v1/text_generation.grpc.pb.h"

namespace v1 = seqserve::v1;

// [connect]
// gRPC repeats a call that no message has come of: at once, later, or when the server asks for it.
const char kServiceConfig[] = R"({"methodConfig": [{
  "name": [{"service": "seqserve.v1.TextGeneration"}, {"service": "seqserve.v1.TextClassification"}],
  "retryPolicy": {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
  }
}]})";

std::string Read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address, const std::string& ca_file) {
  grpc::ChannelArguments options;
  options.SetServiceConfigJSON(kServiceConfig);
  options.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);  // more often than every 10 s gets the connection closed
  options.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  auto credentials = grpc::InsecureChannelCredentials();
  if (!ca_file.empty()) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = Read(ca_file);
    credentials = grpc::SslCredentials(tls);
  }
  return grpc::CreateCustomChannel(address, credentials, options);
}

std::string token;

// Every call has a context of its own, with its deadline and the token.
struct Call : grpc::ClientContext {
  explicit Call(std::chrono::milliseconds timeout) {
    set_deadline(std::chrono::system_clock::now() + timeout);
    if (!token.empty()) AddMetadata("authorization", "Bearer " + token);
  }
};
// [end]

using namespace std::chrono_literals;

const char* Name(int code) {
  switch (code) {
    case grpc::StatusCode::CANCELLED: return "CANCELLED";
    case grpc::StatusCode::INVALID_ARGUMENT: return "INVALID_ARGUMENT";
    case grpc::StatusCode::DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    default: return "another code";
  }
}

void Check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

v1::GenerateRequest Romeo(unsigned max_tokens) {
  v1::GenerateRequest request;
  request.set_model("charlm");
  request.set_prompt("ROMEO:");
  request.set_max_tokens(max_tokens);
  return request;
}

// [unary]
v1::ClassifyRequest RequestOf(const std::vector<std::string>& texts) {
  v1::ClassifyRequest request;
  request.set_model("sentiment");
  for (const auto& text : texts) request.add_texts(text);
  return request;
}

void ShowUnary(v1::TextClassification::Stub& classification) {
  Call call(10s);
  v1::ClassifyResponse answer;
  Check(classification.Classify(&call, RequestOf({"A moving, funny film."}), &answer));
  std::cout << answer.results(0).label() << ' ' << answer.results(0).probability() << '\n';
}
// [end]

// [streaming]
void ShowStreaming(v1::TextGeneration::Stub& generation) {
  v1::GenerateRequest request = Romeo(60);
  request.set_seed(18446744073709551557u);  // all 64 bits count
  Call call(10s);
  auto pieces = generation.Generate(&call, request);
  v1::GenerateResponse piece, last;
  while (pieces->Read(&piece)) {
    std::cout << piece.text();
    last = piece;
  }
  Check(pieces->Finish());
  std::cout << '\n'
            << last.seed() << ' ' << v1::FinishReason_Name(last.finish_reason()) << ' '
            << last.usage().generated_tokens() << '\n';
}
// [end]

// [two-way]
void ShowTwoWayStream(v1::TextClassification::Stub& classification) {
  const std::map<std::string, std::string> texts = {
      {"good", "A moving, funny film."}, {"bad", "Dull from start to end."}, {"none", ""}};
  Call call(10s);
  auto stream = classification.ClassifyStream(&call);
  // A thread writes, so that many requests do not wait for answers that nobody reads.
  std::thread writer([&] {
    for (const auto& [id, text] : texts) {
      v1::ClassifyRequest request = RequestOf({text});
      request.set_id(id);
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
  });
  // Answers come as they are ready. The error of one request has its id, and the others go on.
  std::set<std::string> lines;
  v1::ClassifyResponse answer;
  while (stream->Read(&answer)) {
    std::ostringstream line;
    line << std::setprecision(9) << answer.id() << ' ';
    if (answer.has_error()) {
      line << Name(answer.error().code());
    } else {
      line << answer.results(0).label() << ' ' << answer.results(0).probability();
    }
    lines.insert(line.str());
  }
  writer.join();
  Check(stream->Finish());
  for (const auto& line : lines) std::cout << line << '\n';
}
// [end]

// [cancel]
void ShowCancel(v1::TextGeneration::Stub& generation) {
  Call call(60s);
  auto pieces = generation.Generate(&call, Romeo(5000));
  v1::GenerateResponse piece;
  while (pieces->Read(&piece)) {
    if (!piece.text().empty()) call.TryCancel();  // the server frees the slot at its next tick
  }
  std::cout << Name(pieces->Finish().error_code()) << '\n';
}
// [end]

// [errors]
// Returns the detail of that type (ErrorInfo, BadRequest, RetryInfo) of an error, if it has one.
template <typename Detail>
std::optional<Detail> DetailOf(const grpc::Status& status) {
  google::rpc::Status rich;
  rich.ParseFromString(status.error_details());
  Detail detail;
  for (const auto& packed : rich.details()) {
    if (packed.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

void ShowErrors(v1::TextClassification::Stub& classification) {
  Call call(10s);
  v1::ClassifyResponse answer;
  const grpc::Status status = classification.Classify(&call, RequestOf({"good", ""}), &answer);
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  const auto bad = DetailOf<google::rpc::BadRequest>(status);
  if (!info || !bad) throw std::runtime_error("expected the details of a wrong request");
  std::cout << Name(status.error_code()) << ' ' << info->reason() << '\n';
  for (const auto& wrong : bad->field_violations()) {
    std::cout << wrong.field() << ": " << wrong.description() << '\n';
  }
}
// [end]

// [deadline]
void ShowDeadline(v1::TextGeneration::Stub& generation) {
  Call call(1ms);
  auto pieces = generation.Generate(&call, Romeo(5000));
  v1::GenerateResponse piece;
  while (pieces->Read(&piece)) std::cout << piece.text();
  std::cout << Name(pieces->Finish().error_code()) << '\n';
}
// [end]

// [retry]
// An overloaded server says when to come back. The service config repeats a call so at most five times.
v1::ClassifyResponse ClassifyPatiently(v1::TextClassification::Stub& classification, const std::string& text) {
  for (;;) {
    Call call(60s);
    v1::ClassifyResponse answer;
    const grpc::Status status = classification.Classify(&call, RequestOf({text}), &answer);
    const auto retry = DetailOf<google::rpc::RetryInfo>(status);
    if (!retry) {
      Check(status);
      return answer;
    }
    const auto& delay = retry->retry_delay();
    std::this_thread::sleep_for(std::chrono::seconds(delay.seconds()) + std::chrono::nanoseconds(delay.nanos()));
  }
}

void ShowRetries(v1::TextClassification::Stub& classification) {
  std::vector<v1::ClassifyResponse> answers(64);
  std::vector<std::thread> threads;
  for (size_t number = 0; number < answers.size(); ++number) {
    threads.emplace_back([&, number] {
      const std::string text = "Film number " + std::to_string(number) + " is good.";
      answers[number] = ClassifyPatiently(classification, text);
    });
  }
  for (auto& thread : threads) thread.join();
  std::cout << answers.size() << " answered\n";
}
// [end]

int main(int count, char** arguments) {
  const std::string address = count > 1 ? arguments[1] : "127.0.0.1:50051";
  const std::string ca_file = count > 2 ? arguments[2] : "";
  token = count > 3 ? arguments[3] : "";
  auto channel = Connect(address, ca_file);
  auto generation = v1::TextGeneration::NewStub(channel);
  auto classification = v1::TextClassification::NewStub(channel);
  std::cout << std::setprecision(9);
  std::cout << "== unary\n";
  ShowUnary(*classification);
  std::cout << "== streaming\n";
  ShowStreaming(*generation);
  std::cout << "== two-way stream\n";
  ShowTwoWayStream(*classification);
  std::cout << "== cancel\n";
  ShowCancel(*generation);
  std::cout << "== errors\n";
  ShowErrors(*classification);
  std::cout << "== deadline\n";
  ShowDeadline(*generation);
  std::cout << "== retries\n";
  ShowRetries(*classification);
}
