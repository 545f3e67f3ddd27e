// Command gocp is go-control-plane's snapshot cache and xDS server, told what to serve line by line.
//
//	gocp ADDRESS
//
// stdin   {"TYPE URL": ["hex", …], …}   the whole snapshot, each resource as an encoded message; replaces the last one
// stdout  one JSON object per line, see event: what it did, and what was said on its streams, in order
//
// Every node sees the same snapshot. The version of a type is a digest of its resources, so a change of one type is no
// change of another, and a process that is started again gives the same resources the same versions.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sort"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// everybody is the one key of the snapshot cache.
type everybody struct{}

func (everybody) ID(*core.Node) string { return "everybody" }

// event is a line of output.
type event struct {
	// Event is "listening", "published", "opened", "closed", "request" or "response".
	Event  string `json:"event"`
	Stream int64  `json:"stream,omitempty"`
	// Incremental tells which variant of the protocol the stream speaks.
	Incremental bool   `json:"incremental,omitempty"`
	Node        string `json:"node,omitempty"`
	Type        string `json:"type,omitempty"`
	Nonce       string `json:"nonce,omitempty"`
	// Names are those asked for, or those sent.
	Names []string `json:"names,omitempty"`
	// Removed are those no longer asked for, or those that are told to be gone.
	Removed []string `json:"removed,omitempty"`
	// Claimed are those that the client says it has from an earlier stream.
	Claimed int `json:"claimed,omitempty"`
	// Error is the reason of a refusal.
	Error string `json:"error,omitempty"`
}

// reporter writes events, one at a time.
type reporter struct {
	lock sync.Mutex
	out  *json.Encoder
}

func (r *reporter) say(e event) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if err := r.out.Encode(e); err != nil {
		fail(err)
	}
}

func (r *reporter) callbacks() server.CallbackFuncs {
	opened := func(incremental bool) func(context.Context, int64, string) error {
		return func(_ context.Context, stream int64, _ string) error {
			r.say(event{Event: "opened", Stream: stream, Incremental: incremental})
			return nil
		}
	}
	closed := func(incremental bool) func(int64, *core.Node) {
		return func(stream int64, node *core.Node) {
			r.say(event{Event: "closed", Stream: stream, Incremental: incremental, Node: node.GetId()})
		}
	}
	return server.CallbackFuncs{
		StreamOpenFunc:        opened(false),
		StreamClosedFunc:      closed(false),
		DeltaStreamOpenFunc:   opened(true),
		DeltaStreamClosedFunc: closed(true),
		StreamRequestFunc: func(stream int64, request *discovery.DiscoveryRequest) error {
			r.say(event{
				Event: "request", Stream: stream, Node: request.GetNode().GetId(), Type: request.GetTypeUrl(),
				Nonce: request.GetResponseNonce(), Names: request.GetResourceNames(), Error: reason(request.GetErrorDetail()),
			})
			return nil
		},
		StreamResponseFunc: func(_ context.Context, stream int64, _ *discovery.DiscoveryRequest, response *discovery.DiscoveryResponse) {
			names := make([]string, 0, len(response.GetResources()))
			for _, resource := range response.GetResources() {
				message, err := resource.UnmarshalNew()
				if err != nil {
					fail(err)
				}
				names = append(names, cache.GetResourceName(message))
			}
			r.say(event{
				Event: "response", Stream: stream, Type: response.GetTypeUrl(), Nonce: response.GetNonce(), Names: names,
			})
		},
		StreamDeltaRequestFunc: func(stream int64, request *discovery.DeltaDiscoveryRequest) error {
			r.say(event{
				Event: "request", Stream: stream, Incremental: true, Node: request.GetNode().GetId(),
				Type: request.GetTypeUrl(), Nonce: request.GetResponseNonce(), Names: request.GetResourceNamesSubscribe(),
				Removed: request.GetResourceNamesUnsubscribe(), Claimed: len(request.GetInitialResourceVersions()),
				Error: reason(request.GetErrorDetail()),
			})
			return nil
		},
		StreamDeltaResponseFunc: func(stream int64, _ *discovery.DeltaDiscoveryRequest, response *discovery.DeltaDiscoveryResponse) {
			names := make([]string, 0, len(response.GetResources()))
			for _, resource := range response.GetResources() {
				names = append(names, resource.GetName())
			}
			r.say(event{
				Event: "response", Stream: stream, Incremental: true, Type: response.GetTypeUrl(), Nonce: response.GetNonce(),
				Names: names, Removed: response.GetRemovedResources(),
			})
		},
	}
}

// reason is the text of a refusal; a refusal without one has its code.
func reason(detail *status.Status) string {
	if detail == nil || detail.GetMessage() != "" {
		return detail.GetMessage()
	}
	return fmt.Sprintf("code %d", detail.GetCode())
}

// snapshot reads a line of input.
func snapshot(line []byte) (*cache.Snapshot, error) {
	var given map[string][]string
	if err := json.Unmarshal(line, &given); err != nil {
		return nil, err
	}
	read := &cache.Snapshot{}
	for url, encoded := range given {
		kind := cache.GetResponseType(url)
		if kind == types.UnknownType {
			return nil, fmt.Errorf("go-control-plane does not serve %s", url)
		}
		sort.Strings(encoded)
		digest := sha256.New()
		resources := make([]types.Resource, 0, len(encoded))
		for _, text := range encoded {
			digest.Write([]byte(text + "\n"))
			resource, err := decode(url, text)
			if err != nil {
				return nil, err
			}
			resources = append(resources, resource)
		}
		read.Resources[kind] = cache.NewResources(hex.EncodeToString(digest.Sum(nil)[:8]), resources)
	}
	return read, nil
}

func decode(url, text string) (proto.Message, error) {
	bytes, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil {
		return nil, err
	}
	var message protoreflect.ProtoMessage = kind.New().Interface()
	return message, proto.Unmarshal(bytes, message)
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, "gocp:", why)
	os.Exit(1)
}

func main() {
	if len(os.Args) != 2 {
		fail("usage: gocp ADDRESS")
	}
	ctx := context.Background()
	report := &reporter{out: json.NewEncoder(os.Stdout)}
	// Not in its ADS mode, in which it answers only those who ask for every resource of the snapshot.
	snapshots := cache.NewSnapshotCache(false, everybody{}, nil)
	service := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	discovery.RegisterAggregatedDiscoveryServiceServer(service, server.NewServer(ctx, snapshots, report.callbacks()))
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fail(err)
	}
	go func() { fail(service.Serve(listener)) }()
	report.say(event{Event: "listening"})

	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		read, err := snapshot(lines.Bytes())
		if err != nil {
			fail(err)
		}
		if err := snapshots.SetSnapshot(ctx, "everybody", read); err != nil {
			fail(err)
		}
		report.say(event{Event: "published"})
	}
	// Whoever started it is gone, or has heard enough.
	if err := lines.Err(); err != nil {
		fail(err)
	}
}
