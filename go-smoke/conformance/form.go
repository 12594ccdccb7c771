package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

type testCase struct {
	Name       string
	Promises   []string
	Refs       []string
	Requires   []string
	Sandbox    string
	Mode       string
	Cmd        any
	Script     any
	Args       []any
	Env        [][]any
	Cwd        any
	User       *string
	TTY        *struct{ Rows, Cols *uint16 }
	AlsoTTY    bool    `json:"also_tty"`
	TimeoutMs  *uint64 `json:"timeout_ms"`
	Rlimits    []struct{ Resource, Soft, Hard any }
	Stdin      any
	DrainMs    *uint64 `json:"drain_ms"`
	WaitForEOF bool    `json:"wait_for_eof"`
	MaxOutput  *uint64 `json:"max_output"`
	Times      int
	AtOnce     int `json:"at_once"`
	Before     []any
	Steps      []any
	Expect     expectation
	After      []any
}

type expectation struct {
	Code, Signal *int
	Core         *bool
	TimedOut     bool `json:"timed_out"`
	Failure      *struct {
		Kind, Stage string
		ErrnoName   string `json:"errno_name"`
		Path        any
	}
	Error       *string
	Closed      bool
	Stdout      any
	Stderr      any
	StdoutTotal *uint64 `json:"stdout_total"`
	StderrTotal *uint64 `json:"stderr_total"`
	Truncated   bool
	WriterLeft  bool `json:"writer_left"`
	StdinErrors any  `json:"stdin_errors"`
	Events      []string
	Usage       struct {
		CPUMsMin  int64  `json:"cpu_ms_min"`
		RSSMin    uint64 `json:"rss_min"`
		WallMsMin int64  `json:"wall_ms_min"`
	}
	WithinMs  *int64 `json:"within_ms"`
	AtLeastMs int64  `json:"at_least_ms"`
}

// object is what a JSON object is parsed to. Numbers keep all their digits.
type object = map[string]any

func parse(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(into)
}

func integer(value any) (int64, bool) {
	number, is := value.(json.Number)
	if !is {
		return 0, false
	}
	n, err := number.Int64()
	return n, err == nil
}

// fits tells whether a value has the form of a schema, of which only what ours uses is known.
func fits(value any, schema, root object) bool {
	if ref, is := schema["$ref"].(string); is {
		name := ref[strings.LastIndex(ref, "/")+1:]
		return fits(value, root["$defs"].(object)[name].(object), root)
	}
	fitting := func(forms any) (count int) {
		for _, form := range forms.([]any) {
			if fits(value, form.(object), root) {
				count++
			}
		}
		return count
	}
	if forms, is := schema["anyOf"]; is && fitting(forms) == 0 {
		return false
	}
	if forms, is := schema["oneOf"]; is && fitting(forms) != 1 {
		return false
	}
	if wanted, is := schema["const"]; is && value != wanted {
		return false
	}
	if all, is := schema["enum"].([]any); is && !contains(all, value) {
		return false
	}
	kind, typed := schema["type"].(string)
	is := func(wanted string, has bool) bool { return !typed || (kind == wanted) == has }
	switch v := value.(type) {
	case bool:
		return is("boolean", true)
	case string:
		pattern, _ := schema["pattern"].(string)
		return is("string", true) && regexp.MustCompile(pattern).MatchString(v)
	case json.Number:
		n, whole := integer(v)
		least, bounded := integer(schema["minimum"])
		most, limited := integer(schema["maximum"])
		return is("integer", true) && whole && !(bounded && n < least) && !(limited && n > most)
	case []any:
		return is("array", true) && fitItems(v, schema, root)
	case object:
		return is("object", true) && fitFields(v, schema, root)
	}
	return false
}

func contains[T any](all []T, one any) bool {
	for _, other := range all {
		if any(other) == one {
			return true
		}
	}
	return false
}

func fitItems(items []any, schema, root object) bool {
	least, bounded := integer(schema["minItems"])
	most, limited := integer(schema["maxItems"])
	if n := int64(len(items)); bounded && n < least || limited && n > most {
		return false
	}
	first, _ := schema["prefixItems"].([]any)
	for i, item := range items {
		form, _ := schema["items"].(object)
		if i < len(first) {
			form = first[i].(object)
		}
		if !fits(item, form, root) {
			return false
		}
	}
	return true
}

func fitFields(fields, schema, root object) bool {
	needed, _ := schema["required"].([]any)
	together, _ := schema["dependentRequired"].(object)
	for name, others := range together {
		if _, is := fields[name]; is {
			needed = append(needed[:len(needed):len(needed)], others.([]any)...)
		}
	}
	for _, name := range needed {
		if _, is := fields[name.(string)]; !is {
			return false
		}
	}
	known, _ := schema["properties"].(object)
	for name, value := range fields {
		form, is := known[name].(object)
		if !is && schema["additionalProperties"] == false || is && !fits(value, form, root) {
			return false
		}
	}
	return true
}

func folder() string {
	if named := os.Getenv("MSB_CONFORMANCE_FOLDER"); named != "" {
		return named
	}
	return "../conformance"
}

type caseFile struct {
	Cases     []json.RawMessage
	Wrong     []json.RawMessage
	OutOfForm []json.RawMessage `json:"out_of_form"`
}

func read(path string, into any) error {
	text, err := os.ReadFile(path)
	if err == nil {
		err = parse(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func loadCase(raw json.RawMessage, schema object) (*testCase, error) {
	var value any
	c := &testCase{Sandbox: "default", Mode: "collect", Stdin: "null", Times: 1}
	if err := parse(raw, &value); err != nil {
		return nil, err
	}
	if !fits(value, schema["$defs"].(object)["case"].(object), schema) {
		return nil, fmt.Errorf("out of form: %s", raw)
	}
	return c, parse(raw, c)
}

// loadCases gives all cases, terminal variants included, and the file of each.
func loadCases() (cases []*testCase, files []string, err error) {
	var schema object
	if err := read(filepath.Join(folder(), "schema.json"), &schema); err != nil {
		return nil, nil, err
	}
	paths, err := filepath.Glob(filepath.Join(folder(), "cases", "*.json"))
	if err != nil || len(paths) == 0 {
		return nil, nil, fmt.Errorf("no cases in %s: %v", folder(), err)
	}
	for _, path := range paths {
		var fields object
		var file caseFile
		if err := read(path, &fields); err != nil {
			return nil, nil, err
		}
		fields["cases"] = []any{} // each by itself, below
		if !fits(fields, schema, schema) {
			return nil, nil, fmt.Errorf("%s is out of form", path)
		}
		if err := read(path, &file); err != nil {
			return nil, nil, err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		for _, raw := range file.Cases {
			c, err := loadCase(raw, schema)
			if err != nil {
				return nil, nil, err
			}
			cases, files = append(cases, c), append(files, name)
			if c.AlsoTTY {
				twin := *c
				twin.Name += ", on a terminal"
				twin.TTY = &struct{ Rows, Cols *uint16 }{}
				cases, files = append(cases, &twin), append(files, name)
			}
		}
	}
	return cases, files, nil
}

// loadWrong gives cases that must not pass. Those out of form are refused at once.
func loadWrong(path string) (cases []*testCase, err error) {
	var schema object
	var file caseFile
	if err := read(filepath.Join(folder(), "schema.json"), &schema); err != nil {
		return nil, err
	}
	if err := read(path, &file); err != nil {
		return nil, err
	}
	complete := func(raw json.RawMessage) json.RawMessage {
		named, _ := json.Marshal(string(raw))
		text := fmt.Sprintf(`{"name": %s, "promises": ["A1"], %s`, named, bytes.TrimLeft(raw, "{ "))
		return json.RawMessage(text)
	}
	for _, raw := range file.OutOfForm {
		if _, err := loadCase(complete(raw), schema); err == nil {
			return nil, fmt.Errorf("in form: %s", raw)
		}
	}
	for _, raw := range file.Wrong {
		c, err := loadCase(complete(raw), schema)
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// value gives the bytes that a form means, with the run's own path in them.
func value(form any, own string) []byte {
	if text, is := form.(string); is {
		return []byte(strings.ReplaceAll(text, "@T@", own))
	}
	for name, content := range form.(object) {
		switch name {
		case "text":
			return value(content, own)
		case "hex":
			data, err := hex.DecodeString(strings.ReplaceAll(content.(string), " ", ""))
			if err != nil {
				panic(err)
			}
			return data
		case "repeat":
			count, _ := integer(content.(object)["count"])
			return bytes.Repeat(value(content.(object)["of"], own), int(count))
		case "cycle":
			count, _ := integer(content)
			data := make([]byte, count)
			for i := range data {
				data[i] = byte(i % 251)
			}
			return data
		case "concat":
			data := []byte{}
			for _, part := range content.([]any) {
				data = append(data, value(part, own)...)
			}
			return data
		}
	}
	return []byte{}
}

func show(data []byte) string {
	if len(data) > 300 {
		return fmt.Sprintf("%q... (%d bytes)", data[:300], len(data))
	}
	return fmt.Sprintf("%q", data)
}

// mismatch tells what is wrong with bytes, or nothing.
func mismatch(said any, got []byte, own string) string {
	all, is := said.(object)
	plain := !is
	for _, form := range []string{"text", "hex", "repeat", "cycle", "concat"} {
		_, has := all[form]
		plain = plain || has
	}
	if said == nil {
		said = ""
	}
	if plain {
		all = object{"exact": said}
	}
	if exact, is := all["exact"]; is && !bytes.Equal(value(exact, own), got) {
		return fmt.Sprintf("expected %s, got %s", show(value(exact, own)), show(got))
	}
	if length, is := integer(all["len"]); is && int(length) != len(got) {
		return fmt.Sprintf("expected %d bytes, got %s", length, show(got))
	}
	if sum, is := all["sha256"]; is && fmt.Sprintf("%x", sha256.Sum256(got)) != sum {
		return fmt.Sprintf("expected another sum, got %s", show(got))
	}
	for name, wanted := range map[string]bool{"contains": true, "absent": false} {
		parts, _ := all[name].([]any)
		for _, part := range parts {
			if bytes.Contains(got, value(part, own)) != wanted {
				return fmt.Sprintf("%s: %s in %s", name, show(value(part, own)), show(got))
			}
		}
	}
	if pattern, is := all["matches"].(string); is {
		whole := `\A(?:` + string(value(pattern, own)) + `)\z`
		if !regexp.MustCompile(whole).Match(got) {
			return fmt.Sprintf("expected a match of %q, got %s", pattern, show(got))
		}
	}
	if list, is := all["lines"].([]any); is {
		var wanted []string
		for _, line := range list {
			wanted = append(wanted, string(value(line, own))+"\n")
		}
		lines := strings.SplitAfter(string(got), "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		sort.Strings(wanted)
		sort.Strings(lines)
		if strings.Join(wanted, "\x00") != strings.Join(lines, "\x00") {
			return fmt.Sprintf("expected these lines in any order %q, got %s", wanted, show(got))
		}
	}
	return ""
}
