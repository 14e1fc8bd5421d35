# What a process in the sandbox of the snapshotter can do, and what not; run inside it.
# usage: sandbox-probe.sh STATE_DIRECTORY
set -u
failures=0

refused() {
  if (eval "$1") 2>/dev/null; then
    echo "possible, but should not be: $1"
    failures=1
  fi
}
possible() {
  if ! (eval "$1"); then
    echo "refused, but is needed: $1"
    failures=1
  fi
}

cd "$1" || exit 1

refused 'touch /run/probe'
refused 'touch /run/containerd-cvmfs-grpc/probe'
refused 'touch /etc/probe'
refused 'touch /srv/probe'
refused 'touch /usr/probe'
refused 'mount -t tmpfs none /mnt'
refused 'unshare --mount true'
refused 'exec 3<>/dev/tcp/127.0.0.1/5000'
refused 'mknod probe-device b 7 0'

possible 'mknod probe-whiteout c 0 0 && test -c probe-whiteout'
possible 'touch probe-owned && chown 1000:1000 probe-owned && chmod 4755 probe-owned && touch -d @1 probe-owned'
possible 'test "$(stat -c %a:%u:%g:%Y probe-owned)" = 4755:1000:1000:1'
possible 'mkdir probe-shared && chown 0:8 probe-shared && chmod 2775 probe-shared'
possible 'test "$(stat -c %a:%u:%g probe-shared)" = 2775:0:8'
possible 'mkdir probe-foreign && chown 1000:1000 probe-foreign && chmod 500 probe-foreign && touch probe-foreign/file'
possible 'rm -r probe-whiteout probe-owned probe-shared probe-foreign'
possible 'ls /srv /cvmfs > probe-list || ls /srv > probe-list; rm probe-list'

exit $failures
