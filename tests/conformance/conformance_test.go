// Package conformance runs containerd's own suite for snapshotters against the daemon, over its socket.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// The name by which the suite leaves out the renaming of folders, which no overlay with redirect_dir=off can do.
	name = "overlayfs"
	// The cases of the suite as of containerd 2.4: fewer that ran means that something was left out.
	cases = 21
	// What the unit file gives the daemon.
	capabilities = "-all,+chown,+dac_override,+fowner,+fsetid"
	// Far more than either takes, also on a busy machine of two cores.
	startLimit = 20 * time.Second
	stopLimit  = 20 * time.Second
)

func TestConformance(t *testing.T) {
	binary := os.Getenv("CVMFS_SNAPSHOTTER_BIN")
	if binary == "" {
		t.Fatal("CVMFS_SNAPSHOTTER_BIN must name the daemon's program")
	}
	if os.Geteuid() != 0 {
		const why = "the suite mounts file systems: it needs root"
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatal(why + ", and REQUIRE_PRIVILEGED=1 forbids to skip it")
		}
		t.Skip(why)
	}
	var ran atomic.Int32
	t.Run("Suite", func(t *testing.T) {
		testsuite.SnapshotterSuite(t, name, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
			ran.Add(1)
			return start(ctx, binary, root)
		})
	})
	t.Logf("%d of %d cases ran", ran.Load(), cases)
	if ran.Load() < cases && !partial() {
		t.Errorf("only %d of %d cases ran", ran.Load(), cases)
	}
}

// partial tells whether the run was asked to be a part only, with `go test -run TestConformance/Suite/Case`.
func partial() bool {
	for _, arg := range os.Args {
		if strings.HasPrefix(arg, "-test.run=") && strings.Contains(arg, "/") {
			return true
		}
	}
	return false
}

// start runs a daemon of its own for one case, and returns a client of it and what stops it.
func start(ctx context.Context, binary, root string) (snapshots.Snapshotter, func() error, error) {
	dir := filepath.Dir(root)
	socket, config, logs := filepath.Join(dir, "s"), filepath.Join(dir, "config.toml"), filepath.Join(dir, "log")
	if err := os.WriteFile(config, nil, 0o644); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(logs)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	// The suite leaves its folder writable for all, which a daemon may refuse.
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, nil, err
	}

	daemon := exec.Command("setpriv", "--no-new-privs", "--bounding-set="+capabilities, "--inh-caps="+capabilities,
		binary, "--address", socket, "--root", root, "--config", config, "--log-level", "debug")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return nil, nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- daemon.Wait() }()

	if err := await(ctx, socket, exited); err != nil {
		return nil, nil, errors.Join(err, stop(daemon, exited, dir))
	}
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, errors.Join(err, stop(daemon, exited, dir))
	}
	client := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), name)
	return client, func() error { return errors.Join(connection.Close(), stop(daemon, exited, dir)) }, nil
}

// await returns once the daemon listens. No call is tried before, as gRPC waits a second after the first refusal.
func await(ctx context.Context, socket string, exited chan error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			return connection.Close()
		}
		select {
		case status := <-exited:
			exited <- status
			return fmt.Errorf("the daemon ended before it listened: %v", status)
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not listen: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the daemon, and fails with its log unless it left in good order and nothing is mounted below dir.
func stop(daemon *exec.Cmd, exited chan error, dir string) error {
	// An error means that it has ended already: Wait says how.
	_ = daemon.Process.Signal(syscall.SIGTERM)
	var failure error
	select {
	case failure = <-exited:
	case <-time.After(stopLimit):
		failure = errors.Join(errors.New("the daemon did not stop"), daemon.Process.Kill(), <-exited)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	failure = errors.Join(failure, err)
	for _, mount := range mounts {
		failure = errors.Join(failure, fmt.Errorf("%s is still mounted", mount.Mountpoint))
	}
	if failure != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		failure = fmt.Errorf("%w\nlog of the daemon:\n%s", failure, log)
	}
	return failure
}
