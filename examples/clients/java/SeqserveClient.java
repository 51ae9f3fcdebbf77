// A client of seqserve in Java: every kind of call, once. build.sh says how it is built.
//
//     java -Djava.library.path=build/native -jar build/client.jar [ADDRESS [CA_FILE TOKEN]]
//
// ADDRESS is 127.0.0.1:50051 unless given. With CA_FILE the connection is encrypted, and TOKEN goes with each call.
import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.seqserve.v1.ClassifyRequest;
import com.seqserve.v1.ClassifyResponse;
import com.seqserve.v1.GenerateRequest;
import com.seqserve.v1.GenerateResponse;
import com.seqserve.v1.TextClassificationGrpc;
import com.seqserve.v1.TextGenerationGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

public final class SeqserveClient {
  private final TextGenerationGrpc.TextGenerationBlockingStub generation;
  private final TextClassificationGrpc.TextClassificationBlockingStub classification;
  private final TextClassificationGrpc.TextClassificationStub asyncClassification;

  private SeqserveClient(ManagedChannel channel, String token) {
    generation = withToken(TextGenerationGrpc.newBlockingStub(channel), token);
    classification = withToken(TextClassificationGrpc.newBlockingStub(channel), token);
    asyncClassification = withToken(TextClassificationGrpc.newStub(channel), token);
  }

  // [connect]
  // gRPC repeats a call that no message has come of: at once, later, or when the server asks for it. Numbers of a
  // service config are doubles.
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of("methodConfig", List.of(Map.of(
          "name", List.of(
              Map.of("service", "seqserve.v1.TextGeneration"),
              Map.of("service", "seqserve.v1.TextClassification")),
          "retryPolicy", Map.of(
              "maxAttempts", 5.0,
              "initialBackoff", "0.1s",
              "maxBackoff", "2s",
              "backoffMultiplier", 2.0,
              "retryableStatusCodes", List.of("UNAVAILABLE", "RESOURCE_EXHAUSTED")))));

  private static ManagedChannel connect(String address, String caFile) throws IOException {
    ChannelCredentials credentials = caFile == null
        ? InsecureChannelCredentials.create()
        : TlsChannelCredentials.newBuilder().trustManager(new File(caFile)).build();
    return Grpc.newChannelBuilder(address, credentials)
        .defaultServiceConfig(SERVICE_CONFIG)
        .enableRetry()
        .keepAliveTime(30, TimeUnit.SECONDS) // the server closes connections that ping more often than every 10 s
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .build();
  }

  private static <S extends AbstractStub<S>> S withToken(S stub, String token) {
    if (token == null) return stub;
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }
  // [end]

  // [unary]
  private static ClassifyRequest requestOf(String... texts) {
    return ClassifyRequest.newBuilder().setModel("sentiment").addAllTexts(List.of(texts)).build();
  }

  private void showUnary() {
    ClassifyResponse answer = classification.withDeadlineAfter(10, TimeUnit.SECONDS)
        .classify(requestOf("A moving, funny film."));
    System.out.println(answer.getResults(0).getLabel() + " " + answer.getResults(0).getProbability());
  }
  // [end]

  // [streaming]
  private static GenerateRequest.Builder romeo(int maxTokens) {
    return GenerateRequest.newBuilder().setModel("charlm").setPrompt("ROMEO:").setMaxTokens(maxTokens);
  }

  private void showStreaming() {
    // Java has no unsigned numbers: a seed above 2^63 - 1 is negative in a long, and is the same 64 bits.
    long seed = Long.parseUnsignedLong("18446744073709551557");
    Iterator<GenerateResponse> pieces = generation.withDeadlineAfter(10, TimeUnit.SECONDS)
        .generate(romeo(60).setSeed(seed).build());
    GenerateResponse piece = GenerateResponse.getDefaultInstance();
    while (pieces.hasNext()) {
      piece = pieces.next();
      System.out.print(piece.getText());
    }
    System.out.println();
    System.out.println(Long.toUnsignedString(piece.getSeed()) + " " + piece.getFinishReason()
        + " " + piece.getUsage().getGeneratedTokens());
  }
  // [end]

  // [two-way]
  private void showTwoWayStream() throws Exception {
    Map<String, String> texts =
        Map.of("good", "A moving, funny film.", "bad", "Dull from start to end.", "none", "");
    // Answers come as they are ready. The error of one request has its id, and the others go on.
    SortedSet<String> lines = new TreeSet<>();
    CompletableFuture<Void> ended = new CompletableFuture<>();
    StreamObserver<ClassifyResponse> answers = new StreamObserver<>() {
      @Override public void onNext(ClassifyResponse answer) {
        lines.add(answer.getId() + " " + (answer.hasError()
            ? Status.fromCodeValue(answer.getError().getCode()).getCode()
            : answer.getResults(0).getLabel() + " " + answer.getResults(0).getProbability()));
      }

      @Override public void onError(Throwable error) {
        ended.completeExceptionally(error);
      }

      @Override public void onCompleted() {
        ended.complete(null);
      }
    };
    StreamObserver<ClassifyRequest> requests =
        asyncClassification.withDeadlineAfter(10, TimeUnit.SECONDS).classifyStream(answers);
    texts.forEach((id, text) -> requests.onNext(requestOf(text).toBuilder().setId(id).build()));
    requests.onCompleted();
    ended.get();
    lines.forEach(System.out::println);
  }
  // [end]

  // [cancel]
  private void showCancel() {
    try (Context.CancellableContext context = Context.current().withCancellation()) {
      context.run(() -> {
        Iterator<GenerateResponse> pieces = generation.withDeadlineAfter(60, TimeUnit.SECONDS)
            .generate(romeo(5000).build());
        while (pieces.hasNext()) {
          pieces.next();
          context.cancel(null); // the server frees the slot at its next tick
        }
      });
    } catch (StatusRuntimeException error) {
      System.out.println(error.getStatus().getCode());
    }
  }
  // [end]

  // [errors]
  /** Returns the detail of that type (ErrorInfo, BadRequest, RetryInfo) of an error, if it has one. */
  private static <D extends Message> Optional<D> detailOf(StatusRuntimeException error, Class<D> type)
      throws InvalidProtocolBufferException {
    Metadata.Key<com.google.rpc.Status> key = Metadata.Key.of(
        "grpc-status-details-bin", ProtoUtils.metadataMarshaller(com.google.rpc.Status.getDefaultInstance()));
    com.google.rpc.Status rich = error.getTrailers() == null ? null : error.getTrailers().get(key);
    if (rich == null) return Optional.empty();
    for (Any detail : rich.getDetailsList()) {
      if (detail.is(type)) return Optional.of(detail.unpack(type));
    }
    return Optional.empty();
  }

  private void showErrors() throws InvalidProtocolBufferException {
    try {
      classification.withDeadlineAfter(10, TimeUnit.SECONDS).classify(requestOf("good", ""));
    } catch (StatusRuntimeException error) {
      String reason = detailOf(error, ErrorInfo.class).orElseThrow().getReason();
      System.out.println(error.getStatus().getCode() + " " + reason);
      for (BadRequest.FieldViolation wrong :
          detailOf(error, BadRequest.class).orElseThrow().getFieldViolationsList()) {
        System.out.println(wrong.getField() + ": " + wrong.getDescription());
      }
    }
  }
  // [end]

  // [deadline]
  private void showDeadline() {
    try {
      generation.withDeadlineAfter(1, TimeUnit.MILLISECONDS)
          .generate(romeo(5000).build())
          .forEachRemaining(piece -> System.out.print(piece.getText()));
    } catch (StatusRuntimeException error) {
      System.out.println(error.getStatus().getCode());
    }
  }
  // [end]

  // [retry]
  /** Repeats a call when an overloaded server asks for it. The service config does so at most five times. */
  private ClassifyResponse classifyPatiently(String text) throws Exception {
    while (true) {
      try {
        return classification.withDeadlineAfter(60, TimeUnit.SECONDS).classify(requestOf(text));
      } catch (StatusRuntimeException error) {
        Optional<RetryInfo> retry = detailOf(error, RetryInfo.class);
        if (retry.isEmpty()) throw error;
        Duration delay = retry.get().getRetryDelay();
        TimeUnit.NANOSECONDS.sleep(TimeUnit.SECONDS.toNanos(delay.getSeconds()) + delay.getNanos());
      }
    }
  }

  private void showRetries() throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(64);
    List<Future<ClassifyResponse>> answers = new ArrayList<>();
    for (int number = 0; number < 64; ++number) {
      String text = "Film number " + number + " is good.";
      answers.add(threads.submit(() -> classifyPatiently(text)));
    }
    for (Future<ClassifyResponse> answer : answers) answer.get();
    threads.shutdown();
    System.out.println(answers.size() + " answered");
  }
  // [end]

  private interface Show {
    void run() throws Exception;
  }

  private static void show(String name, Show shown) throws Exception {
    System.out.println("== " + name);
    shown.run();
  }

  public static void main(String[] arguments) throws Exception {
    String address = arguments.length > 0 ? arguments[0] : "127.0.0.1:50051";
    ManagedChannel channel = connect(address, arguments.length > 1 ? arguments[1] : null);
    SeqserveClient client = new SeqserveClient(channel, arguments.length > 2 ? arguments[2] : null);
    show("unary", client::showUnary);
    show("streaming", client::showStreaming);
    show("two-way stream", client::showTwoWayStream);
    show("cancel", client::showCancel);
    show("errors", client::showErrors);
    show("deadline", client::showDeadline);
    show("retries", client::showRetries);
    channel.shutdown();
  }
}
