package accesslog

import (
	"strconv"

	"connectd/pkg/lb"
)

func appendJSON(dst []byte, c lb.AccessLog, e *Entry) []byte {
	dst = append(dst, `{"start_time":"`...)
	dst = e.Start.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, '"')
	dst = jsonText(dst, `,"method":`, e.Method)
	dst = jsonText(dst, `,"path":`, e.path(c))
	dst = append(dst, `,"protocol":"`...)
	dst = append(dst, e.protocol()...)
	dst = append(dst, '"')
	dst = jsonNumber(dst, `,"response_code":`, int64(e.Status))
	if e.Kind == lb.AppGRPC {
		dst = append(dst, `,"grpc_status":`...)
		if e.GRPCStatus < 0 {
			dst = append(dst, "null"...)
		} else {
			dst = append(dst, '"')
			dst = appendGRPC(dst, e.GRPCStatus, "")
			dst = append(dst, '"')
		}
	}
	dst = jsonNumber(dst, `,"bytes_received":`, e.Received)
	dst = jsonNumber(dst, `,"bytes_sent":`, e.Sent)
	duration := `,"duration":`
	if e.Kind == lb.AppHTTP {
		duration = `,"duration_ms":`
	}
	dst = jsonNumber(dst, duration, e.Duration.Milliseconds())
	dst = append(dst, `,"upstream_service_time":`...)
	if e.UpstreamTime < 0 {
		dst = append(dst, "null"...)
	} else {
		// A string, for Envoy takes it from a header.
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, e.UpstreamTime.Milliseconds(), 10)
		dst = append(dst, '"')
	}
	dst = jsonText(dst, `,"forwarded_for":`, e.ForwardedFor)
	dst = jsonText(dst, `,"user_agent":`, e.UserAgent)
	dst = jsonText(dst, `,"request_id":`, e.RequestID)
	dst = jsonText(dst, `,"authority":`, e.Authority)
	dst = append(dst, `,"upstream_host":`...)
	if e.UpstreamHost.IsValid() {
		dst = append(dst, '"')
		dst = e.UpstreamHost.AppendTo(dst)
		dst = append(dst, '"')
	} else {
		dst = append(dst, "null"...)
	}
	if e.Kind != lb.AppHTTP {
		dst = jsonText(dst, `,"stream_id":`, e.streamID())
	}
	if e.Tries > 1 {
		dst = jsonNumber(dst, `,"tries":`, int64(e.Tries))
	}
	return append(dst, "}\n"...)
}

func jsonNumber(dst []byte, key string, n int64) []byte {
	dst = append(dst, key...)
	return strconv.AppendInt(dst, n, 10)
}

// jsonText writes null for text that is not there.
func jsonText(dst []byte, key string, text []byte) []byte {
	dst = append(dst, key...)
	if len(text) == 0 {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = escape(dst, text)
	return append(dst, '"')
}
