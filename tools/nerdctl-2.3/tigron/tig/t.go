// Package tig stands in for nerdctl's package of this name. nerdctl finds it by a `replace` with a path inside its own
// repository, which a module that only requires nerdctl cannot follow; all that the command needs of it is this interface.
package tig

// T is the part of testing.TB that nerdctl's command refers to.
type T interface {
	Helper()
	FailNow()
	Fail()
	Log(args ...any)
	Name() string
	TempDir() string
	Skip(args ...any)
	Chdir(dir string)
	Setenv(key, value string)
}
