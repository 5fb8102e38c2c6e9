package aws

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// protocol is how a request is written, and so its answer.
type protocol struct {
	contentType string
	service     string
	action      string
	small       bool // names with a small first letter
	cbor, query bool
}

// targets maps what stands before the action, in X-Amz-Target or in the path
// of rpc-v2-cbor, to services.
var targets = map[string]string{
	"Route53AutoNaming_v20170314":            ServiceCloudMap,
	"AmazonEC2ContainerServiceV20141113":     ServiceECS,
	"GraniteServiceVersion20100801":          ServiceCloudWatch,
	"/service/GraniteServiceVersion20100801": ServiceCloudWatch,
}

// parse finds out protocol, service, action and input of a request.
func parse(r *http.Request, body []byte) (p protocol, tree any, err error) {
	p.contentType = r.Header.Get("Content-Type")
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		prefix, action, _ := strings.Cut(target, ".")
		p.service, p.action = targets[prefix], action
		p.small = p.service == ServiceECS
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		err = d.Decode(&tree)
		return p, tree, err
	}
	if r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor" {
		prefix, action, _ := strings.Cut(r.URL.Path, "/operation/")
		p.service, p.action, p.cbor = targets[prefix], action, true
		v, err := cbor.Decode(body)
		if err != nil {
			return p, nil, err
		}
		return p, fromCBOR(v), nil
	}
	if media, _, _ := mime.ParseMediaType(p.contentType); media == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(string(body))
		p.query = true
		if form.Get("Version") == "2010-08-01" {
			p.service, p.action = ServiceCloudWatch, form.Get("Action")
		}
		return p, fromForm(form), err
	}
	return p, nil, errors.New("unknown protocol")
}

// answer writes a tree as the protocol does.
func (p protocol) answer(w http.ResponseWriter, status int, tree any) {
	h := w.Header()
	h.Set("X-Amzn-RequestId", requestID)
	switch {
	case p.cbor:
		h.Set("Smithy-Protocol", "rpc-v2-cbor")
		h.Set("Content-Type", "application/cbor")
		w.WriteHeader(status)
		w.Write(cbor.Encode(toCBOR(tree)))
	case p.query:
		h.Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		w.Write(p.xml(status, tree))
	default:
		h.Set("Content-Type", p.contentType)
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(tree)
	}
}

const requestID = "00000000-0000-0000-0000-000000000000"

// xml writes an answer of the query protocol: an error, or one that says
// nothing but that it went well.
func (p protocol) xml(status int, tree any) []byte {
	const id = "<RequestId>" + requestID + "</RequestId>"
	var b bytes.Buffer
	if status == http.StatusOK {
		fmt.Fprintf(&b, "<%sResponse><ResponseMetadata>%s</ResponseMetadata></%[1]sResponse>", p.action, id)
		return b.Bytes()
	}
	fields, _ := tree.(map[string]any)
	b.WriteString("<ErrorResponse><Error><Type>Sender</Type><Code>")
	xml.EscapeText(&b, fmt.Append(nil, fields["__type"]))
	b.WriteString("</Code><Message>")
	xml.EscapeText(&b, fmt.Append(nil, fields["message"]))
	b.WriteString("</Message></Error>" + id + "</ErrorResponse>")
	return b.Bytes()
}

// toCBOR writes the few answers that are made over CBOR: strings in a map.
func toCBOR(tree any) cbor.Value {
	out := cbor.Map{}
	fields, _ := tree.(map[string]any)
	for name, v := range fields {
		if s, ok := v.(string); ok {
			out[name] = cbor.String(s)
		}
	}
	return out
}

// fromCBOR makes a tree of a CBOR value.
func fromCBOR(v cbor.Value) any {
	switch v := v.(type) {
	case cbor.Map:
		fields := make(map[string]any, len(v))
		for key, element := range v {
			fields[key] = fromCBOR(element)
		}
		return fields
	case cbor.List:
		list := make([]any, len(v))
		for i, element := range v {
			list[i] = fromCBOR(element)
		}
		return list
	case *cbor.Tag: // 1 is a time
		if seconds, ok := number(fromCBOR(v.Value)); ok {
			return time.UnixMilli(int64(seconds * 1000)).UTC()
		}
		return nil
	case cbor.String:
		return string(v)
	case cbor.Bool:
		return bool(v)
	case cbor.Uint:
		return float64(v)
	case cbor.NegInt:
		return -float64(v)
	case cbor.Float32:
		return float64(v)
	case cbor.Float64:
		return float64(v)
	}
	return nil
}

// fromForm makes a tree of the query protocol's parameters: dots part levels,
// and a level below "member" is a list.
func fromForm(form map[string][]string) map[string]any {
	root := make(map[string]any)
	for name, values := range form {
		at := root
		steps := strings.Split(name, ".")
		for _, step := range steps[:len(steps)-1] {
			next, ok := at[step].(map[string]any)
			if !ok {
				next = make(map[string]any)
				at[step] = next
			}
			at = next
		}
		at[steps[len(steps)-1]] = values[0]
	}
	for name, v := range root {
		root[name] = lists(v)
	}
	return root
}

// lists turns {"member": {"1": a, "2": b}} into [a, b].
func lists(v any) any {
	fields, ok := v.(map[string]any)
	if !ok {
		return v
	}
	members, ok := fields["member"].(map[string]any)
	if !ok {
		for name, v := range fields {
			fields[name] = lists(v)
		}
		return fields
	}
	keys := slices.SortedFunc(maps.Keys(members), func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	all := make([]any, 0, len(keys))
	for _, key := range keys {
		all = append(all, lists(members[key]))
	}
	return all
}
