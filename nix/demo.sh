image=127.0.0.1:5000/app:1
nerdctl=(nerdctl --snapshotter cvmfs-snapshotter)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
  printf '$ %s\n' "$*"
  "$@"
}

until cvmfs-snapshotter health >/dev/null 2>&1 && systemctl --quiet is-active containerd nginx; do sleep 0.2; done

say "The registry of this machine has manifests, but not one layer. The layers lie in /srv/layers:"
show ls /srv/layers/.layers
say "An image is pulled all the same:"
show "${nerdctl[@]}" pull "$image"
say "It takes no space:"
show "${nerdctl[@]}" images
say "And it runs:"
show "${nerdctl[@]}" run --rm --net none "$image" cat /app/message
say "Nothing of it was asked for but manifest and configuration:"
show cat /var/log/nginx/registry.log
cat <<'END'

Try next:
  nerdctl --snapshotter cvmfs-snapshotter run -it --rm --net none 127.0.0.1:5000/app:1 sh
  nerdctl --snapshotter cvmfs-snapshotter pull 127.0.0.1:5000/app:2   (one layer is downloaded)
  systemctl status cvmfs-snapshotter
  systemd-analyze security cvmfs-snapshotter
  cvmfs-snapshotter --help
  poweroff   (or Ctrl-a x)
END
