package join

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"connectd/pkg/strictyaml"
)

const (
	labelPrefix         = "connectd."
	labelServiceConnect = "connectd.serviceConnect" // ECS's serviceConnectConfiguration
	labelPorts          = "connectd.ports"          // the container's portMappings
	labelService        = "connectd.service"        // settings of the task's services
	labelServicePrefix  = "connectd.service."       // and a discoveryName: settings of that one
	labelOff            = "connectd.off"            // "true": the task is left alone
)

// labelled is what one container says in one label.
type labelled struct{ container, text string }

// collect finds the labels that count. One that stands in the image with the
// same value does not: Docker merges those, and an image must not name itself
// payments.
func (d *decoder) collect() {
	d.labels = map[string][]labelled{}
	containers := slices.SortedStableFunc(slices.Values(d.task.Containers), func(a, b Container) int {
		return strings.Compare(a.Name, b.Name)
	})
	for _, c := range containers {
		for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
			if !strings.HasPrefix(strings.ToLower(key), labelPrefix) {
				continue
			}
			text := c.Labels[key]
			image, stands := c.ImageLabels[key]
			switch {
			case !known(key):
				d.note("label "+key, UnknownLabel, "of container %s means nothing%s", quote(c.Name), suggestion(key))
			case stands && image == text:
				d.note("label "+key, ImageLabel, "of container %s stands in its image too, so it does not count", quote(c.Name))
			case len(text) > strictyaml.MaxJSON:
				d.problem("label "+key, TooLarge, "of container %s is larger than %d bytes", quote(c.Name), strictyaml.MaxJSON)
			default:
				d.labels[key] = append(d.labels[key], labelled{c.Name, text})
			}
		}
	}
}

func known(label string) bool {
	switch label {
	case labelServiceConnect, labelPorts, labelService, labelOff:
		return true
	}
	return strings.HasPrefix(label, labelServicePrefix) && label != labelServicePrefix
}

func suggestion(label string) string {
	for _, k := range []string{labelServiceConnect, labelService, labelPorts, labelOff} {
		if len(label) < 2*len(k) && strictyaml.Distance(strings.ToLower(label), strings.ToLower(k)) <= 2 {
			return ", did you mean " + k + "?"
		}
	}
	return ""
}

// one returns what the task's containers say in a label. Where two differ that
// is a problem, and the first stands for the others.
func (d *decoder) one(label string) (text string, ok bool) {
	said := d.labels[label]
	if len(said) == 0 {
		return "", false
	}
	for _, other := range said[1:] {
		if strings.TrimSpace(other.text) != strings.TrimSpace(said[0].text) {
			d.problem("label "+label, LabelsDiffer, "containers %s and %s say it differently", quote(said[0].container), quote(other.container))
		}
	}
	return said[0].text, true
}

// off is the brake, and holds in doubt: a value that is neither true nor false
// is a problem and counts as true.
func (d *decoder) off() bool {
	off := false
	for _, l := range d.labels[labelOff] {
		switch l.text {
		case "false":
		case "true":
			off = true
		default:
			off = true
			d.problem("label "+labelOff, InvalidField, "%s of container %s is neither true nor false, so the task is off", quote(l.text), quote(l.container))
		}
	}
	return off
}

// unused notes the labels that mean nothing without connectd.serviceConnect.
func (d *decoder) unused() {
	for _, label := range slices.Sorted(maps.Keys(d.labels)) {
		switch {
		case label == labelOff:
		case d.task.Arriving:
			d.Awaits = true
		default:
			d.note("label "+label, UnusedLabel, "means nothing without %s", labelServiceConnect)
		}
	}
}

// parse parses the JSON of a label; it returns no document where it has
// reported why it cannot.
func (d *decoder) parse(label, text string) (strictyaml.Value, *strictyaml.Document) {
	doc, err := strictyaml.ParseJSON(label, []byte(text))
	if err != nil {
		d.report(label, InvalidJSON, err)
		return strictyaml.Value{}, nil
	}
	return doc.Root(), doc
}

// report makes problems of a document's errors.
func (d *decoder) report(label, reason string, err error) {
	var errs strictyaml.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			d.problem(field(label, e.Field), reason, "%s", e.Detail)
		}
	}
}

// at is the field of a value of a label.
func at(label string, v strictyaml.Value) string { return field(label, v.Origin().Field) }

func field(label, path string) string {
	if path == "" {
		return "label " + label
	}
	return "label " + label + ": " + path
}

// quote shows a value in a sentence.
func quote(s string) string {
	const most = 80 // bytes of a value worth showing
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.Quote(s)
}
