//go:build tools

// The suites that run through a pair of proxies; go.mod pins them, go.sum holds their hashes.
package tools

import (
	_ "github.com/summerwind/h2spec/cmd/h2spec"
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
