package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestECSCloudWatch: what tasks serve and call reaches CloudWatch under the
// names of their ECS services, both sets of dimensions, whether the forwarder
// carries it, the kernel reads it or it is plain TCP.
func TestECSCloudWatch(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	a.extra = "cloudWatch: {enabled: true, periodSeconds: 10}\n"
	a.configureECS("introspection: http://127.0.0.1:51678")
	a.start()
	for i, s := range []struct {
		name     string
		protocol types.ApplicationProtocol
		settings string
	}{
		{"orders", types.ApplicationProtocolHttp, "{}"},
		{"pages", types.ApplicationProtocolHttp, `{"mode": "direct"}`},
		{"files", "", "{}"},
	} {
		labels := map[string]string{
			"connectd.serviceConnect":    fmt.Sprintf(`{"enabled": true, "services": [{"portName": "p", "discoveryName": %[1]q, "clientAliases": [{"port": 80, "dnsName": %[1]q}]}]}`, s.name),
			"connectd.service." + s.name: s.settings,
		}
		a.run(1+i, "awsvpc", s.name, labels, []types.PortMapping{{Name: new("p"), ContainerPort: new(int32(8080)), AppProtocol: s.protocol}}, "serve", ":8080", s.name)
		a.active("prod/"+s.name, 1)
		// It goes on for more than two periods: the first is where counting begins.
		a.run(11+i, "awsvpc", "calls-"+s.name, map[string]string{"connectd.serviceConnect": `{"enabled": true}`}, nil, "requests", "http://"+s.name+"/", "40s")
	}
	var want []string
	both := func(dimension, name, owner string, metrics ...string) {
		for _, m := range metrics {
			want = append(want, m+" "+dimension+"="+name, m+" "+dimension+"="+name+" ServiceName="+owner+"-svc ClusterName=shop")
		}
	}
	http := []string{"HTTPCode_Target_2XX_Count", "RequestCountPerTarget", "TargetResponseTime"}
	for _, name := range []string{"orders", "pages"} {
		both("DiscoveryName", name, name, "RequestCount")
		both("TargetDiscoveryName", name, "calls-"+name, http...)
	}
	for _, name := range []string{"orders", "pages", "files"} {
		both("TargetDiscoveryName", name, "calls-"+name, "TargetProcessedBytes")
	}
	a.eventually(50*time.Second, func() error {
		got := map[string]bool{}
		for _, m := range a.cloud.Metrics() {
			for _, d := range m.Data {
				text := *d.MetricName
				for _, dim := range d.Dimensions {
					text += " " + *dim.Name + "=" + *dim.Value
				}
				got[text] = true
			}
		}
		var missing []string
		for _, w := range want {
			if !got[w] {
				missing = append(missing, w)
			}
		}
		if missing != nil {
			return fmt.Errorf("CloudWatch has %d series, and not\n%s", len(got), strings.Join(missing, "\n"))
		}
		return nil
	})
}
