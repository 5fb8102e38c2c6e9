package aws

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A tree is what the wire protocols have in common: nil, bool, string,
// float64, json.Number, time.Time, []any and map[string]any.

// errShape is wrapped by refusals of a tree that does not fit.
var errShape = errors.New("input of another shape")

// fill puts a tree into a value of one of the SDK's types. Fields are found
// whatever their case is, for ECS writes them with a small first letter;
// unknown ones are ignored, as the services do.
func fill(to reflect.Value, tree any) error {
	if tree == nil {
		return nil
	}
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		return fill(to.Elem(), tree)
	}
	if to.Type() == reflect.TypeFor[time.Time]() {
		return fillTime(to, tree)
	}
	switch to.Kind() {
	case reflect.Struct, reflect.Map:
		fields, ok := tree.(map[string]any)
		if !ok {
			return mismatch(to, tree)
		}
		if to.Kind() == reflect.Map {
			return fillMap(to, fields)
		}
		return fillStruct(to, fields)
	case reflect.Slice:
		list, ok := tree.([]any)
		if !ok {
			return mismatch(to, tree)
		}
		all := reflect.MakeSlice(to.Type(), len(list), len(list))
		for i, v := range list {
			if err := fill(all.Index(i), v); err != nil {
				return err
			}
		}
		to.Set(all)
		return nil
	}
	return fillScalar(to, tree)
}

func fillStruct(to reflect.Value, fields map[string]any) error {
	for name, v := range fields {
		field := to.FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, name) })
		if !field.IsValid() || !field.CanSet() {
			continue
		}
		if err := fill(field, v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func fillMap(to reflect.Value, fields map[string]any) error {
	all := reflect.MakeMap(to.Type())
	for key, v := range fields {
		element := reflect.New(to.Type().Elem()).Elem()
		if err := fill(element, v); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		all.SetMapIndex(reflect.ValueOf(key), element)
	}
	to.Set(all)
	return nil
}

func fillTime(to reflect.Value, tree any) error {
	switch v := tree.(type) {
	case time.Time:
		to.Set(reflect.ValueOf(v))
		return nil
	case string:
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			to.Set(reflect.ValueOf(t))
			return nil
		}
	}
	seconds, ok := number(tree)
	if !ok {
		return mismatch(to, tree)
	}
	to.Set(reflect.ValueOf(time.UnixMilli(int64(seconds * 1000)).UTC()))
	return nil
}

func fillScalar(to reflect.Value, tree any) error {
	switch to.Kind() {
	case reflect.String:
		if s, ok := tree.(string); ok {
			to.SetString(s)
			return nil
		}
	case reflect.Bool:
		switch tree {
		case true, "true":
			to.SetBool(true)
			return nil
		case false, "false":
			return nil
		}
	case reflect.Int32, reflect.Int64:
		if f, ok := number(tree); ok && f == math.Trunc(f) {
			to.SetInt(int64(f))
			return nil
		}
	case reflect.Float64:
		if f, ok := number(tree); ok {
			to.SetFloat(f)
			return nil
		}
	}
	return mismatch(to, tree)
}

// number reads a number; the query protocol writes them as strings.
func number(tree any) (float64, bool) {
	switch v := tree.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case string:
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil
	}
	return 0, false
}

func mismatch(to reflect.Value, tree any) error {
	return fmt.Errorf("%w: %T where %s belongs", errShape, tree, to.Type())
}

// unfill makes a tree of a value of one of the SDK's types. What is nil is
// left out; small writes names with a small first letter.
func unfill(from reflect.Value, small bool) any {
	switch from.Kind() {
	case reflect.Pointer, reflect.Interface:
		if from.IsNil() {
			return nil
		}
		return unfill(from.Elem(), small)
	case reflect.Struct:
		if t, ok := from.Interface().(time.Time); ok {
			return float64(t.UnixMilli()) / 1000
		}
		return unfillStruct(from, small)
	case reflect.Map:
		fields := make(map[string]any, from.Len())
		for key, v := range from.Seq2() {
			fields[key.String()] = unfill(v, small)
		}
		return fields
	case reflect.Slice:
		list := make([]any, from.Len())
		for i := range list {
			list[i] = unfill(from.Index(i), small)
		}
		return list
	}
	return from.Interface()
}

func unfillStruct(from reflect.Value, small bool) map[string]any {
	fields := make(map[string]any)
	for f, v := range from.Fields() {
		empty := v.Kind() == reflect.String && v.Len() == 0 // an enum that is not set
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
			empty = v.IsNil()
		}
		if !f.IsExported() || f.Name == "ResultMetadata" || empty {
			continue
		}
		name := f.Name
		if small {
			name = strings.ToLower(name[:1]) + name[1:]
		}
		fields[name] = unfill(v, small)
	}
	return fields
}
