// Package install finds libtorch on a machine, compiles torchvit's C++ shim
// against it, and keeps a record of what it chose.
//
// [Setup] is for a person who types a command: it searches, compiles and
// writes the record. [Resolve] is for a program that runs: it reads only its
// options, the environment variable TORCHVIT_LIBTORCH and that record, and
// never searches, because looking for a library in the working folder would
// let a folder run code. [Diagnose] says what is there and what is wrong, on
// any machine.
//
// The package is plain Go and opens no library itself.
package install
