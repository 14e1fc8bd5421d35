# What a process in the sandbox of the snapshotter can do, and what not; run inside it.
# usage: sandbox-probe.sh STATE_DIRECTORY
set -u
failures=0

denied='Read-only file system|Operation not permitted|[Pp]ermission denied|Address family not supported'

refused() {
  if error=$( (eval "$1") 2>&1); then
    echo "possible, but should not be: $1"
    failures=1
  elif ! [[ $error =~ $denied ]]; then
    echo "failed for another reason: $1: $error"
    failures=1
  fi
}
possible() {
  if ! (eval "$1"); then
    echo "refused, but is needed: $1"
    failures=1
  fi
}

export LC_ALL=C
cd "$1" || exit 1
mkdir probe-mount || exit 1

refused 'touch /run/probe'
refused 'touch /run/containerd-cvmfs-grpc/probe'
refused 'touch /etc/probe'
refused 'touch /srv/probe'
refused 'touch /usr/probe'
refused 'touch /root/probe'
refused 'touch /srv/layers/probe'
refused 'touch /var/lib/probe'
refused 'touch /var/lib/containerd/probe'
refused 'touch /var/log/probe'
refused 'mount -t tmpfs none probe-mount'
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
possible 'rmdir probe-mount'

exit $failures
