//go:build race

package jit_test

const race = true
