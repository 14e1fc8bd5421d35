# mount.cvmfs REPOSITORY DIRECTORY [OPTION...]: the mount helper of a stand-in for the CernVM-FS client.
# It serves /srv/cvmfs/REPOSITORY.
repository=$1
directory=$2
state=/run/mock-cvmfs/$repository
aside=$state/mount

# What an earlier client left behind when it died.
umount --lazy "$aside" 2>/dev/null || true
mkdir -p "$aside"

# The mock opens its mount point, which behind an automount would wait for this very mount: so it mounts aside.
setsid mock-cvmfs --fqrn "$repository" --backing "/srv/cvmfs/$repository" --mountpoint "$aside" \
  --control "$state/control" </dev/null >>"$state/log" 2>&1 &
for _ in $(seq 100); do
  if mountpoint --quiet "$aside"; then
    exec mount --no-canonicalize --bind "$aside" "$directory"
  fi
  sleep 0.1
done
cat "$state/log" >&2
exit 32
