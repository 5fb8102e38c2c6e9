package aws

import (
	"context"
	"slices"
	"strings"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// GetOperation says how far an operation is.
func (m CloudMap) GetOperation(ctx context.Context, in *sd.GetOperationInput, _ ...func(*sd.Options)) (*sd.GetOperationOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("GetOperation"), in, func(c *Cloud, account string, in *sd.GetOperationInput) (*sd.GetOperationOutput, error) {
		op := c.operations[value(in.OperationId)]
		if op == nil || op.account != account {
			return nil, &types.OperationNotFound{Message: new("No operation found with ID " + value(in.OperationId))}
		}
		return &sd.GetOperationOutput{Operation: new(op.Operation)}, nil
	})
}

// ListOperations lists operations, the newest first.
func (m CloudMap) ListOperations(ctx context.Context, in *sd.ListOperationsInput, _ ...func(*sd.Options)) (*sd.ListOperationsOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("ListOperations"), in, func(c *Cloud, account string, in *sd.ListOperationsInput) (*sd.ListOperationsOutput, error) {
		for _, f := range in.Filters {
			if err := checkFilter(string(f.Name), f.Values, f.Condition, "NAMESPACE_ID", "SERVICE_ID", "STATUS", "TYPE"); err != nil {
				return nil, err
			}
		}
		var all []*operation
		for _, op := range c.operations {
			if op.account == account && !slices.ContainsFunc(in.Filters, func(f types.OperationFilter) bool { return !op.passes(f) }) {
				all = append(all, op)
			}
		}
		slices.SortFunc(all, func(a, b *operation) int {
			if d := b.CreateDate.Compare(*a.CreateDate); d != 0 {
				return d
			}
			return strings.Compare(*b.Id, *a.Id)
		})
		part, next, err := page(all, in.MaxResults, 100, 100, in.NextToken)
		if err != nil {
			return nil, invalid(err.Error())
		}
		out := &sd.ListOperationsOutput{Operations: []types.OperationSummary{}, NextToken: next}
		for _, op := range part {
			out.Operations = append(out.Operations, types.OperationSummary{Id: op.Id, Status: op.Status})
		}
		return out, nil
	})
}

func (op *operation) passes(f types.OperationFilter) bool {
	switch f.Name {
	case types.OperationFilterNameNamespaceId:
		return slices.Contains(f.Values, op.Targets["NAMESPACE"])
	case types.OperationFilterNameServiceId:
		return slices.Contains(f.Values, op.Targets["SERVICE"])
	case types.OperationFilterNameStatus:
		return slices.Contains(f.Values, string(op.Status))
	}
	return slices.Contains(f.Values, string(op.Type))
}
