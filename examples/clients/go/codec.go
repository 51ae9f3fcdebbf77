package main

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
)

// codec replaces grpc-go's own in Debian 12, which is of 2020 and panics at messages of today's generator. With
// grpc-go 1.34 or newer leave this file out.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(value interface{}) ([]byte, error) {
	message, ok := value.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("expected a message, found %T", value)
	}
	return proto.Marshal(message)
}

func (codec) Unmarshal(data []byte, value interface{}) error {
	message, ok := value.(proto.Message)
	if !ok {
		return fmt.Errorf("expected a message, found %T", value)
	}
	return proto.Unmarshal(data, message)
}

func init() { encoding.RegisterCodec(codec{}) }
