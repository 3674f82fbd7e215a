package main

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/report"
)

func reportCommand() *cobra.Command {
	var out, rows string
	cmd := &cobra.Command{
		Use:   "report FILE.json",
		Short: "Show a comparison again: the table, and with --out as HTML, SVG and Markdown",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := compare.Load(args[0])
			if err != nil {
				return err
			}
			report.Table(cmd.OutOrStdout(), r)
			if out == "" {
				return nil
			}
			var re *regexp.Regexp
			if rows != "" {
				if re, err = regexp.Compile(rows); err != nil {
					return err
				}
			}
			return report.Write(r, strings.TrimSuffix(out, ".html"), re)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write FILE.html, FILE.svg and FILE.md (given without the ending)")
	cmd.Flags().StringVar(&rows, "rows", "", "regular expression of the cases in FILE.svg (default: all)")
	return cmd
}
