package plugin

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// checkOutput refuses a value of -o that the verb does not know.
func checkOutput(output string, known ...string) error {
	if output == "" || slices.Contains(known, output) {
		return nil
	}
	return usageError("-o %s: use %s", output, strings.Join(known, ", "))
}

// checkDryRun refuses a value of --dry-run that is none.
func checkDryRun(dryRun string) error {
	if slices.Contains([]string{dryRunNone, dryRunClient, dryRunServer}, dryRun) {
		return nil
	}
	return usageError("--dry-run=%s: use none, client or server", dryRun)
}

// printObject prints "json" or "yaml".
func printObject(w io.Writer, output string, object any) error {
	content, err := json.MarshalIndent(object, "", "  ")
	if err == nil && output == "yaml" {
		content, err = yaml.JSONToYAML(content)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", output, err)
	}
	_, err = fmt.Fprintln(w, strings.TrimSuffix(string(content), "\n"))
	return err
}
