package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// metadata is where an instance's answers come from.
type metadata interface {
	// get returns what a path below meta-data holds; found is false if it is
	// not there. An error says nothing of either.
	get(ctx context.Context, path string) (text string, found bool, err error)
	identity(ctx context.Context) (Identity, error)
}

// maxText bounds what is read of an answer: those of use are a line.
const maxText = 64 << 10

// service is the instance metadata service, by its second version alone: what
// answers without a token may be anybody. A question takes its client 5 s at
// most.
type service struct{ client *imds.Client }

func newMetadata() *service {
	return &service{imds.New(imds.Options{
		EnableFallback: aws.FalseTernary,
		Retryer:        aws.NopRetryer{}, // the next look is 5 s away
	})}
}

func (s *service) get(ctx context.Context, path string) (string, bool, error) {
	out, err := s.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if response := (*smithyhttp.ResponseError)(nil); errors.As(err, &response) && response.HTTPStatusCode() == http.StatusNotFound {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("get instance metadata %s: %w", path, err)
	}
	defer out.Content.Close()
	text, err := io.ReadAll(io.LimitReader(out.Content, maxText))
	if err != nil {
		return "", false, fmt.Errorf("read instance metadata %s: %w", path, err)
	}
	return string(text), true, nil
}

func (s *service) identity(ctx context.Context) (Identity, error) {
	doc, err := s.client.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return Identity{}, fmt.Errorf("get instance identity: %w", err)
	}
	zoneID, _, err := s.get(ctx, "placement/availability-zone-id")
	if err != nil {
		return Identity{}, err
	}
	out := Identity{
		Region: doc.Region, AccountID: doc.AccountID, InstanceID: doc.InstanceID, Zone: doc.AvailabilityZone, ZoneID: zoneID,
	}
	out.IPv4, _ = netip.ParseAddr(doc.PrivateIP)
	return out, nil
}
