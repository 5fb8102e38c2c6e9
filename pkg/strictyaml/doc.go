// Package strictyaml decodes YAML files strictly: unknown and duplicate keys,
// wrong types and values out of bounds are errors, every error names file,
// line, field and value, and all errors of a file are reported at once. It is
// a leaf that any package may use.
//
// A decoder walks the document and reads each field once:
//
//	doc, err := strictyaml.Parse("catalog.yaml", data)
//	if err != nil { return err }
//	m := doc.Root().Map("address", "port", "weight")
//	m.Require("address", "port")
//	port := m.Int("port", 0, 1, 65535)
//	weight := m.Int("weight", 1, 1, 65535)
//	return doc.Err()
//
// A getter that finds a wrong value reports it and returns the default, so
// decoding goes on and Err tells everything that is wrong.
package strictyaml
