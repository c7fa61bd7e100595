package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// magic begins a file: what it is, and the version of the layout. The sum of the
// rest follows, and the answer to Describe as it was.
const magic = "callbackd-schema 1 "

const headerLen = len(magic) + 2*sha256.Size + len("\n")

func encode(d *host.Description) ([]byte, error) {
	settings, err := wire.SchemaToProto(d.Schema)
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(&sinkpb.DescribeResponse{
		Name: d.Name, Version: d.Version, Doc: d.Doc, Schema: settings,
		Capabilities: &sinkpb.Capabilities{
			MaxInFlight:    unsigned(d.Capabilities.MaxInFlight),
			MaxBatchEvents: unsigned(d.Capabilities.MaxBatchEvents),
			MaxCalls:       unsigned(d.Capabilities.MaxCalls),
			Linger:         durationpb.New(d.Capabilities.Linger),
		},
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(magic+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

// The host bounds capabilities far below.
func unsigned(n int) uint32 { return uint32(min(max(n, 0), maxCapability)) } //nolint:gosec // bounded

// decode reads a file that anybody may have written.
func decode(content []byte) (*host.Description, error) {
	if len(content) < headerLen || !bytes.HasPrefix(content, []byte(magic)) {
		return nil, errors.New("it is not a description of this version of callbackd")
	}
	header, body := content[:headerLen], content[headerLen:]
	sum := sha256.Sum256(body)
	if string(header) != magic+hex.EncodeToString(sum[:])+"\n" {
		return nil, errors.New("its content is not what was written")
	}
	return decodeBody(body)
}

// What a description may hold, at most what the host lets through.
const (
	maxCapability = 1 << 16
	maxVersion    = 100 // bytes
	maxDoc        = host.MaxMessageLen
)

func decodeBody(body []byte) (*host.Description, error) {
	var answer sinkpb.DescribeResponse
	if err := proto.Unmarshal(body, &answer); err != nil {
		return nil, errors.New("it is not a description")
	}
	if !schema.ValidName(answer.GetName()) {
		return nil, errors.New("its name is not one that a sink type may have")
	}
	if err := errors.Join(checkText("version", answer.GetVersion(), maxVersion), checkText("doc", answer.GetDoc(), maxDoc)); err != nil {
		return nil, err
	}
	settings, err := wire.SchemaFromProto(answer.GetSchema())
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	capabilities := answer.GetCapabilities()
	linger, err := wire.Duration(capabilities.GetLinger())
	if err != nil || linger < 0 {
		return nil, errors.New("its linger is not a duration")
	}
	d := &host.Description{
		Name: answer.GetName(), Version: answer.GetVersion(), Doc: answer.GetDoc(), Schema: settings,
		Capabilities: host.Capabilities{
			MaxInFlight:    int(capabilities.GetMaxInFlight()),
			MaxBatchEvents: int(capabilities.GetMaxBatchEvents()),
			MaxCalls:       int(capabilities.GetMaxCalls()),
			Linger:         linger,
		},
	}
	if c := d.Capabilities; max(c.MaxInFlight, c.MaxBatchEvents, c.MaxCalls) > maxCapability {
		return nil, errors.New("its capabilities are out of range")
	}
	return d, nil
}

// checkText refuses what the host would not have let through.
func checkText(name, text string, most int) error {
	if len(text) > most || !utf8.ValidString(text) {
		return fmt.Errorf("its %s is not text of at most %d bytes", name, most)
	}
	return nil
}
