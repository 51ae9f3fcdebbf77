// A client of seqserve in Go: every kind of call, once. build.sh says how it is built.
//
//	build/client [ADDRESS [CA_FILE TOKEN]]
//
// ADDRESS is 127.0.0.1:50051 unless given. With CA_FILE the connection is encrypted, and TOKEN goes with each call.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	seqserve "seqserve/v1"
)

// [connect]
// gRPC repeats a call that no message has come of: at once, later, or when the server asks for it. grpc-go before
// 1.40 does so where GRPC_GO_RETRY=on is set.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "seqserve.v1.TextGeneration"}, {"service": "seqserve.v1.TextClassification"}],
	"retryPolicy": {
		"maxAttempts": 5,
		"initialBackoff": "0.1s",
		"maxBackoff": "2s",
		"backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
	}
}]}`

// bearer sends the token with each call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

func connect(address, caFile, token string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		// The server closes connections that ping more often than every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if caFile == "" {
		return grpc.Dial(address, append(options, grpc.WithInsecure())...)
	}
	tls, err := credentials.NewClientTLSFromFile(caFile, "")
	if err != nil {
		return nil, err
	}
	options = append(options, grpc.WithTransportCredentials(tls), grpc.WithPerRPCCredentials(bearer(token)))
	return grpc.Dial(address, options...)
}

// [end]

type clients struct {
	generation     seqserve.TextGenerationClient
	classification seqserve.TextClassificationClient
}

// [unary]
func (c clients) showUnary() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request := &seqserve.ClassifyRequest{Model: "sentiment", Texts: []string{"A moving, funny film."}}
	answer, err := c.classification.Classify(ctx, request)
	if err != nil {
		return err
	}
	fmt.Println(answer.Results[0].Label, answer.Results[0].Probability)
	return nil
}

// [end]

// [streaming]
func (c clients) showStreaming() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	seed := uint64(18446744073709551557) // all 64 bits count
	request := &seqserve.GenerateRequest{Model: "charlm", Prompt: "ROMEO:", MaxTokens: 60, Seed: &seed}
	pieces, err := c.generation.Generate(ctx, request)
	if err != nil {
		return err
	}
	var last *seqserve.GenerateResponse
	for {
		piece, err := pieces.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		fmt.Print(piece.Text)
		last = piece
	}
	fmt.Println()
	fmt.Println(last.Seed, last.FinishReason, last.Usage.GeneratedTokens)
	return nil
}

// [end]

// [two-way]
func (c clients) showTwoWayStream() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := c.classification.ClassifyStream(ctx)
	if err != nil {
		return err
	}
	// Another goroutine sends, so that many requests do not wait for answers that nobody reads.
	go func() {
		texts := map[string]string{"good": "A moving, funny film.", "bad": "Dull from start to end.", "none": ""}
		for id, text := range texts {
			request := &seqserve.ClassifyRequest{Id: id, Model: "sentiment", Texts: []string{text}}
			if stream.Send(request) != nil {
				return // Recv says why
			}
		}
		stream.CloseSend()
	}()
	// Answers come as they are ready. The error of one request has its id, and the others go on.
	var lines []string
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if answer.Error != nil {
			lines = append(lines, fmt.Sprint(answer.Id, " ", codeName(codes.Code(answer.Error.Code))))
		} else {
			lines = append(lines, fmt.Sprint(answer.Id, " ", answer.Results[0].Label, " ", answer.Results[0].Probability))
		}
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	return nil
}

// [end]

// [cancel]
func (c clients) showCancel() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request := &seqserve.GenerateRequest{Model: "charlm", Prompt: "ROMEO:", MaxTokens: 5000}
	pieces, err := c.generation.Generate(ctx, request)
	for err == nil {
		if _, err = pieces.Recv(); err == nil {
			cancel() // the server frees the slot at its next tick
		}
	}
	fmt.Println(codeName(status.Code(err)))
	return nil
}

// [end]

// [errors]
// details sorts the details of an error by their types; those that it does not have are nil.
func details(err error) (info *errdetails.ErrorInfo, bad *errdetails.BadRequest, retry *errdetails.RetryInfo) {
	for _, detail := range status.Convert(err).Details() {
		switch found := detail.(type) {
		case *errdetails.ErrorInfo:
			info = found
		case *errdetails.BadRequest:
			bad = found
		case *errdetails.RetryInfo:
			retry = found
		}
	}
	return info, bad, retry
}

func (c clients) showErrors() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request := &seqserve.ClassifyRequest{Model: "sentiment", Texts: []string{"good", ""}}
	_, err := c.classification.Classify(ctx, request)
	info, bad, _ := details(err)
	if info == nil || bad == nil {
		return fmt.Errorf("expected the details of a wrong request, found: %v", err)
	}
	fmt.Println(codeName(status.Code(err)), info.Reason)
	for _, wrong := range bad.FieldViolations {
		fmt.Printf("%s: %s\n", wrong.Field, wrong.Description)
	}
	return nil
}

// [end]

// [deadline]
func (c clients) showDeadline() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	request := &seqserve.GenerateRequest{Model: "charlm", Prompt: "ROMEO:", MaxTokens: 5000}
	pieces, err := c.generation.Generate(ctx, request)
	for err == nil {
		_, err = pieces.Recv()
	}
	fmt.Println(codeName(status.Code(err)))
	return nil
}

// [end]

// [retry]
// classifyPatiently repeats a call when an overloaded server asks for it. The service config does so at most five
// times.
func (c clients) classifyPatiently(ctx context.Context, text string) (*seqserve.ClassifyResponse, error) {
	for {
		request := &seqserve.ClassifyRequest{Model: "sentiment", Texts: []string{text}}
		answer, err := c.classification.Classify(ctx, request)
		_, _, retry := details(err)
		if retry == nil {
			return answer, err
		}
		delay := time.Duration(retry.RetryDelay.Seconds)*time.Second + time.Duration(retry.RetryDelay.Nanos)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c clients) showRetries() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var group sync.WaitGroup
	errs := make([]error, 64)
	for number := range errs {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			_, errs[number] = c.classifyPatiently(ctx, fmt.Sprintf("Film number %d is good.", number))
		}(number)
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	fmt.Println(len(errs), "answered")
	return nil
}

// [end]

// codeName returns the name that every language has for a code; Go's own are in another case.
func codeName(code codes.Code) string {
	names := map[codes.Code]string{
		codes.Canceled:         "CANCELLED",
		codes.InvalidArgument:  "INVALID_ARGUMENT",
		codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	}
	if name, ok := names[code]; ok {
		return name
	}
	return code.String()
}

func argument(index int, otherwise string) string {
	if index < len(os.Args) {
		return os.Args[index]
	}
	return otherwise
}

func main() {
	connection, err := connect(argument(1, "127.0.0.1:50051"), argument(2, ""), argument(3, ""))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	c := clients{seqserve.NewTextGenerationClient(connection), seqserve.NewTextClassificationClient(connection)}
	shown := []struct {
		name string
		show func() error
	}{
		{"unary", c.showUnary},
		{"streaming", c.showStreaming},
		{"two-way stream", c.showTwoWayStream},
		{"cancel", c.showCancel},
		{"errors", c.showErrors},
		{"deadline", c.showDeadline},
		{"retries", c.showRetries},
	}
	for _, one := range shown {
		fmt.Println("==", one.name)
		if err := one.show(); err != nil {
			log.Fatal(err)
		}
	}
}
