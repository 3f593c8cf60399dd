// Visage from Go: train, follow across a restart of the server, predict a directory. See build.sh
// for building.
//
// The dataset is a directory on the server, the images are files on this machine.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	visage "visage/v1"
)

// Predict is idempotent, so it is also retried when the queue is full (RESOURCE_EXHAUSTED);
// StartTraining is idempotent by its request id.
const serviceConfig = `{"methodConfig": [
	{"name": [{"service": "visage.v1.PredictionService"}], "timeout": "60s", "retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.5s", "maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}},
	{"name": [{"service": "visage.v1.TrainingService"}], "retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.5s", "maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

const (
	patience        = 5 * time.Minute
	pause           = 500 * time.Millisecond
	imagesInACall = 16
	callsAtOnce     = 4
)

// codec encodes messages with google.golang.org/protobuf. Debian's grpc-go 1.33 uses the older
// golang/protobuf 1.3, which does not support messages of the current generator; later releases of
// grpc-go need no custom codec.
type codec struct{}

func (codec) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(message.(proto.Message))
}

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func (codec) Name() string { return "proto" }

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatalf("usage: %s TARGET DATASET IMAGES EPOCHS", os.Args[0])
	}
	epochs, err := strconv.ParseUint(os.Args[4], 10, 32)
	if err != nil {
		log.Fatalf("the number of epochs must be an integer, got %s", os.Args[4])
	}
	options, err := transport()
	if err != nil {
		log.Fatal(err)
	}
	options = append(options, grpc.WithDefaultServiceConfig(serviceConfig), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	connection, err := grpc.Dial(os.Args[1], options...)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx := context.Background()
	if err := train(ctx, visage.NewTrainingServiceClient(connection), os.Args[2], uint32(epochs)); err != nil {
		log.Fatal(err)
	}
	if err := predict(ctx, visage.NewPredictionServiceClient(connection), os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

// transport returns TLS and a token, by the variables of the command line client.
func transport() ([]grpc.DialOption, error) {
	if os.Getenv("VISAGE_CA") == "" {
		return []grpc.DialOption{grpc.WithInsecure()}, nil
	}
	authority, err := os.ReadFile(os.Getenv("VISAGE_CA"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("VISAGE_CA must be a PEM file with certificates, got %s", os.Getenv("VISAGE_CA"))
	}
	if os.Getenv("VISAGE_CERT") != "" {
		pair, err := tls.LoadX509KeyPair(os.Getenv("VISAGE_CERT"), os.Getenv("VISAGE_KEY"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}
	if path := os.Getenv("VISAGE_TOKEN_FILE"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(token(strings.TrimSpace(string(text)))))
	}
	return options, nil
}

// token is sent with each call, over TLS only.
type token string

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (token) RequireTransportSecurity() bool { return true }

func train(ctx context.Context, trainings visage.TrainingServiceClient, dataset string, epochs uint32) error {
	spec := &visage.TrainingSpec{Dataset: &visage.DatasetSpec{Path: dataset}, MaxEpochs: &epochs, Recipe: visage.Recipe_RECIPE_FAST}
	started, err := trainings.StartTraining(ctx, &visage.StartTrainingRequest{Spec: spec, RequestId: newUUID()})
	if err != nil {
		return err
	}
	fmt.Println("training", started.Training.Name)
	return follow(ctx, trainings, started.Training.Name, func(event *visage.TrainingEvent) error {
		switch kind := event.Kind.(type) {
		case *visage.TrainingEvent_EpochCompleted:
			fmt.Printf("epoch %d/%d: %.2f years\n", kind.EpochCompleted.Epoch, epochs, kind.EpochCompleted.ValMae)
		case *visage.TrainingEvent_MetricsRewound:
			// The server resumes from a checkpoint and repeats the epochs from here on.
			fmt.Println("rewound to epoch", kind.MetricsRewound.FromEpoch)
		case *visage.TrainingEvent_ModelVersionCreated:
			fmt.Println("model", kind.ModelVersionCreated.ModelVersion)
		case *visage.TrainingEvent_StateChanged:
			if kind.StateChanged.State == visage.TrainingState_TRAINING_STATE_FAILED {
				return fmt.Errorf("%s: %s", kind.StateChanged.Failure.GetReason(), kind.StateChanged.Failure.GetMessage())
			}
		}
		return nil
	})
}

// follow passes on the events of a training, each once; the cursor is the sequence of the last one.
func follow(ctx context.Context, trainings visage.TrainingServiceClient, name string, take func(*visage.TrainingEvent) error) error {
	var cursor uint64
	lastWord := time.Now()
	for {
		err := followOnce(ctx, trainings, name, &cursor, &lastWord, take)
		if status.Code(err) != codes.Unavailable || time.Since(lastWord) > patience {
			return err
		}
		log.Println("reconnecting after event", cursor)
		time.Sleep(retryDelay(err))
	}
}

// followOnce follows until the connection is lost; nil means the end of the training.
func followOnce(ctx context.Context, trainings visage.TrainingServiceClient, name string, cursor *uint64, lastWord *time.Time,
	take func(*visage.TrainingEvent) error) error {
	stream, err := trainings.StreamEpochMetrics(ctx, &visage.StreamEpochMetricsRequest{Name: name, AfterSequence: *cursor})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		*lastWord = time.Now()
		// Heartbeats have no sequence.
		if response.Event.Sequence == 0 {
			continue
		}
		*cursor = response.Event.Sequence
		if err := take(response.Event); err != nil {
			return err
		}
	}
}

// retryDelay is the server's retry delay, or half a second.
func retryDelay(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return time.Duration(retry.RetryDelay.GetSeconds())*time.Second + time.Duration(retry.RetryDelay.GetNanos())
		}
	}
	return pause
}

func predict(ctx context.Context, predictions visage.PredictionServiceClient, directory string) error {
	paths, err := images(directory)
	if err != nil {
		return err
	}
	ages := make([]float64, len(paths))
	starts := make(chan int)
	failures := make(chan error, callsAtOnce)
	var workers sync.WaitGroup
	for worker := 0; worker < callsAtOnce; worker++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			var failure error
			for start := range starts {
				end := start + imagesInACall
				if end > len(paths) {
					end = len(paths)
				}
				// After a failure the rest is drained, so that no other goroutine blocks.
				if failure == nil {
					failure = predictPart(ctx, predictions, paths[start:end], ages[start:end])
				}
			}
			if failure != nil {
				failures <- failure
			}
		}()
	}
	for start := 0; start < len(paths); start += imagesInACall {
		starts <- start
	}
	close(starts)
	workers.Wait()
	close(failures)
	if err := <-failures; err != nil {
		return err
	}
	for index, path := range paths {
		fmt.Printf("%s %.1f\n", filepath.Base(path), ages[index])
	}
	return nil
}

// predictPart reads its own images, so that only those in flight are in memory.
func predictPart(ctx context.Context, predictions visage.PredictionServiceClient, paths []string, ages []float64) error {
	request := &visage.PredictRequest{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		request.Images = append(request.Images, content)
	}
	answer, err := predictions.Predict(ctx, request)
	if err != nil {
		return err
	}
	for index, prediction := range answer.Predictions {
		ages[index] = prediction.Age
	}
	return nil
}

func images(directory string) ([]string, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		switch strings.ToLower(filepath.Ext(entry.Name())) {
		case ".jpg", ".jpeg", ".png", ".webp", ".bmp":
			paths = append(paths, filepath.Join(directory, entry.Name()))
		}
	}
	sort.Strings(paths)
	return paths, nil
}

// newUUID is a random UUID (RFC 4122, version 4).
func newUUID() string {
	var bytes [16]byte
	if _, err := rand.Read(bytes[:]); err != nil {
		log.Fatal(err)
	}
	bytes[6] = bytes[6]&0x0f | 0x40
	bytes[8] = bytes[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", bytes[0:4], bytes[4:6], bytes[6:8], bytes[8:10], bytes[10:16])
}
