package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

// Encode returns the JSON object, on one line, that Parse reads back as the
// same settings: only what differs from the defaults, so "{}" where nothing
// does. Equal settings have equal text. Settings that only a catalog file may
// have (see Decoder) are left out, for they mean nothing on another node.
func Encode(s *lb.Service) string {
	o := object{}
	if s.Protocol == lb.UDP {
		o["protocol"] = "udp"
	}
	o.object("loadBalancing", encodeBalancing(s.LoadBalancing))
	o.object("drain", encodeDrain(s.Drain))
	o.object("outlier", encodeOutlier(s.Outlier))
	if s.HealthCheck != nil {
		o["healthCheck"] = encodeCheck(s.HealthCheck)
	}
	if s.HTTP != nil {
		encodeHTTP(o, s.HTTP)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // < is one byte, \u003c six, of the 1,024 that an attribute has
	if err := enc.Encode(o); err != nil {
		panic(err) // an object holds nothing that cannot be encoded
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// object is a JSON object. encoding/json sorts its keys.
type object map[string]any

// set puts a value in unless it is the default, which is of the same type.
func (o object) set(key string, value, def any) {
	if value == def {
		return
	}
	if d, ok := value.(time.Duration); ok {
		value = decimalSeconds(d)
	}
	o[key] = value
}

// object puts an object in unless it is empty.
func (o object) object(key string, inner object) {
	if len(inner) > 0 {
		o[key] = inner
	}
}

// decimalSeconds is exact, which a float64 of 68 years is not.
func decimalSeconds(d time.Duration) json.Number {
	s := fmt.Sprintf("%d.%09d", d/time.Second, d%time.Second)
	return json.Number(strings.TrimSuffix(strings.TrimRight(s, "0"), "."))
}

func encodeBalancing(l lb.LoadBalancing) object {
	o, def := object{}, balancing(strictyaml.Map{})
	o.set("policy", l.Policy.String(), def.Policy.String())
	o.set("panicThresholdPercent", l.PanicThresholdPercent, def.PanicThresholdPercent)
	return o
}

func encodeDrain(d lb.Drain) object {
	o, def := object{}, drain(strictyaml.Map{})
	o.set("deadlineSeconds", d.Deadline, def.Deadline)
	if !d.Terminate {
		o["connections"] = "leave"
	}
	return o
}

func encodeOutlier(l lb.Outlier) object {
	o, def := object{}, outlier(strictyaml.Map{})
	o.set("consecutiveFailures", l.ConsecutiveFailures, def.ConsecutiveFailures)
	o.set("baseEjectionSeconds", l.BaseEjection, def.BaseEjection)
	o.set("maxEjectionSeconds", l.MaxEjection, defaultMaxEjection(l.BaseEjection))
	o.set("maxEjectionPercent", l.MaxEjectionPercent, def.MaxEjectionPercent)
	return o
}

func encodeCheck(h *lb.HealthCheck) object {
	o, def := object{}, check(strictyaml.Map{})
	o.set("protocol", h.Protocol, def.Protocol)
	if h.Path != "" { // of another protocol than http and https
		o.set("path", h.Path, "/")
	}
	o.set("port", h.Port, def.Port)
	o.set("grpcService", h.GRPCService, def.GRPCService)
	o.set("intervalSeconds", h.Interval, def.Interval)
	o.set("timeoutSeconds", h.Timeout, defaultTimeout(h.Interval))
	o.set("healthyThreshold", h.HealthyThreshold, def.HealthyThreshold)
	o.set("unhealthyThreshold", h.UnhealthyThreshold, def.UnhealthyThreshold)
	o.set("serverName", h.ServerName, def.ServerName)
	o.set("insecureSkipVerify", h.InsecureSkipVerify, def.InsecureSkipVerify)
	return o
}

func encodeHTTP(o object, h *lb.HTTP) {
	o["appProtocol"] = h.Protocol.String()
	if h.Direct {
		o["mode"] = h.Mode()
		return
	}
	idle, perRequest := Timeouts(strictyaml.Value{})
	t := object{}
	t.set("idleTimeoutSeconds", h.IdleTimeout, idle)
	t.set("perRequestTimeoutSeconds", h.RequestTimeout, perRequest)
	o.object("timeout", t)
	o.object("retry", encodeRetry(h.Retry))
	if h.AccessLog.Path == "-" {
		o["accessLog"] = encodeAccessLog(h.AccessLog)
	}
}

func encodeRetry(r lb.Retry) object {
	o, def := object{}, retry(strictyaml.Map{})
	o.set("attempts", r.Attempts, def.Attempts)
	if r.AllMethods {
		o["methods"] = "all"
	}
	o.set("budgetPercent", r.BudgetPercent, def.BudgetPercent)
	o.set("budgetFloorPerSecond", r.BudgetFloor, def.BudgetFloor)
	return o
}

func encodeAccessLog(l lb.AccessLog) object {
	o := object{"format": "TEXT", "path": l.Path}
	if l.Format == lb.LogJSON {
		o["format"] = "JSON"
	}
	if l.QueryParameters {
		o["includeQueryParameters"] = "ENABLED"
	}
	return o
}
