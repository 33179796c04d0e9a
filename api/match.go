package api

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
)

// Match leads requests, or copies of them, to the route of a key that do not carry it: those that meet all conditions.
type Match struct {
	Key        string      `json:"key"` // of a route of the same port
	Conditions []Condition `json:"conditions"`
}

// Condition is something that a request has to have.
//
// A proxy may be older than the table that it reads, and ignores fields that it does not know. So a kind of condition that
// is new has a Part or a Test of its own, and no field that changes what the others mean. A condition that a proxy does not
// know is never met, see [Condition.Known].
type Condition struct {
	Part  Part   `json:"part"`
	Name  string `json:"name,omitempty"` // of a header, in lower case; what [PartShare] has
	Test  Test   `json:"test"`
	Value string `json:"value,omitempty"`
}

// Part is a part of a request.
type Part string

const (
	// PartHeader is the value of a header, or of one of its lines, without the space around it.
	PartHeader Part = "header"
	// PartPath is the path of the target, as it was sent, without the query.
	PartPath Part = "path"
	// PartMethod is the method.
	PartMethod Part = "method"
)

// Test is what is asked of a part.
type Test string

const (
	TestExact   Test = "exact"   // it is Value
	TestPrefix  Test = "prefix"  // it begins with Value
	TestRegex   Test = "regex"   // Value, in RE2's syntax, matches somewhere in it
	TestPresent Test = "present" // it is there, a header's alone
)

// Limits of one [Match]. Everyone's requests to a port are held against its conditions, so these also bound what that
// costs.
const (
	MaxConditions = 8
	maxValue      = 256 // bytes, of names too
	maxProgram    = 200 // instructions that a regular expression is compiled to
)

// ParseConditions reads the value of [AnnotationMatch], a condition a line:
//
//	header <name> exact|prefix|regex <value>
//	header <name> present
//	path exact|prefix|regex <value>
//	method exact|prefix|regex <value>
//
// The value is the rest of the line, without the space around it; nothing in it is escaped. Empty lines do not count. The
// error names the line and the part that is wrong.
func ParseConditions(text string) ([]Condition, error) {
	var conditions []Condition
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if len(conditions) == MaxConditions {
			return nil, fmt.Errorf("line %d: more than %d conditions", number, MaxConditions)
		}
		c := readCondition(line)
		if err := c.checkPart(); err != nil {
			return nil, fmt.Errorf("line %d, %.100q: %w", number, line, err)
		}
		conditions = append(conditions, c)
	}
	if len(conditions) == 0 {
		return nil, errors.New("there is no condition; want lines such as 'header x-user exact alice'")
	}
	return conditions, nil
}

func readCondition(line string) (c Condition) {
	part, rest := cutWord(line)
	c.Part = Part(part)
	if c.Part == PartHeader {
		c.Name, rest = cutWord(rest)
		c.Name = strings.ToLower(c.Name)
	}
	test, rest := cutWord(rest)
	c.Test, c.Value = Test(test), rest
	return c
}

func cutWord(s string) (word, rest string) {
	end := strings.IndexAny(s, " \t")
	if end < 0 {
		return s, ""
	}
	return s[:end], strings.TrimSpace(s[end:])
}

// Known reports whether this version of the program knows what is asked.
func (c Condition) Known() bool {
	if c.Part == PartShare {
		return c.knownShare()
	}
	return c.knownPart() && c.knownTest()
}

func (c Condition) knownPart() bool {
	return c.Part == PartHeader || c.Part == PartPath || c.Part == PartMethod
}

func (c Condition) knownTest() bool {
	return c.Test == TestExact || c.Test == TestPrefix || c.Test == TestRegex || c.Test == TestPresent
}

// Check says what is wrong with a condition.
func (c Condition) Check() error {
	if c.Part == PartShare {
		return c.checkShare()
	}
	return c.checkPart()
}

func (c Condition) checkPart() error {
	if !c.knownPart() {
		return fmt.Errorf("%.100q is no part of a request: want %q, %q or %q", c.Part, PartHeader, PartPath, PartMethod)
	}
	if err := c.checkName(); err != nil {
		return err
	}
	if !c.knownTest() {
		return fmt.Errorf("%.100q is no test: want %q, %q, %q or, of a header, %q", c.Test, TestExact, TestPrefix, TestRegex, TestPresent)
	}
	if c.Test == TestPresent {
		return c.checkPresent()
	}
	return c.checkValue()
}

func (c Condition) checkName() error {
	if c.Part != PartHeader {
		if c.Name != "" {
			return fmt.Errorf("a %s has no name: %.100q", c.Part, c.Name)
		}
		return nil
	}
	if !isHeaderName(c.Name) {
		return fmt.Errorf("%.100q is not the name of a header", c.Name)
	}
	return nil
}

// isHeaderName reports whether s can be the name of a header, in lower case.
func isHeaderName(s string) bool {
	return s != "" && len(s) <= maxValue && !strings.ContainsFunc(s, notHeaderName)
}

// notHeaderName tells what a header's name in lower case cannot hold (RFC 9110, section 5.6.2).
func notHeaderName(r rune) bool {
	return !(r < 0x80 && alphanumeric(byte(r)) && (r < 'A' || r > 'Z')) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func (c Condition) checkPresent() error {
	if c.Part != PartHeader {
		return fmt.Errorf("a %s is always present: ask what it is", c.Part)
	}
	if c.Value != "" {
		return fmt.Errorf("%q takes no value: %.100q", TestPresent, c.Value)
	}
	return nil
}

func (c Condition) checkValue() error {
	switch {
	case c.Value == "":
		return errors.New("the value is missing")
	case len(c.Value) > maxValue:
		return fmt.Errorf("the value has %d bytes, %d are allowed", len(c.Value), maxValue)
	case strings.ContainsFunc(c.Value, isControl):
		return fmt.Errorf("%.100q: no request has a control character", c.Value)
	case c.Test == TestRegex:
		return checkRegexp(c.Value)
	case c.Part == PartPath && (c.Value[0] != '/' || strings.ContainsAny(c.Value, "?# ")):
		return fmt.Errorf("%.100q: a path begins with '/', and has neither a query nor a fragment nor a space", c.Value)
	case c.Part == PartMethod && strings.ContainsFunc(c.Value, notCapital):
		return fmt.Errorf("%.100q: a method is written in capitals", c.Value)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func notCapital(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' }

// checkRegexp bounds what a regular expression costs: its time is that of its program times that of what it looks at.
func checkRegexp(expression string) error {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return fmt.Errorf("%.100q is no regular expression: %w", expression, err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return fmt.Errorf("%.100q is no regular expression: %w", expression, err)
	}
	if n := len(program.Inst); n > maxProgram {
		return fmt.Errorf("%.100q is too large a regular expression: it makes a program of %d instructions, %d are allowed; repeat less", expression, n, maxProgram)
	}
	return nil
}

func (m Match) check() error {
	if n := len(m.Conditions); n > MaxConditions {
		return fmt.Errorf("%d conditions: %d are allowed", n, MaxConditions)
	}
	for _, c := range m.Conditions {
		if !c.Known() {
			continue // of a later version
		}
		if err := c.Check(); err != nil {
			return err
		}
	}
	return nil
}
