// Package export holds the tests of scripts/export.py: models of every source are exported in Python and
// replayed in Go.
package export
