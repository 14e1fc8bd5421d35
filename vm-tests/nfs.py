server.start()
server.wait_for_unit("nfs-server.service")
client.start()
wait_until_ready(client)

with subtest("an image is pulled without any of its layers"):
    client.succeed(f"{NERDCTL} pull {APP}")
    assert downloaded_layers(client) == set()
    client.succeed("findmnt --types nfs4 /mnt/layers")

with subtest("a container sees the image as it is meant"):
    assert_app_is_right(client, f"{RUN} --rm {APP}")
    owned = client.succeed(f"{RUN} --rm --user app {APP} cat /app/owned")
    assert owned == "mine\n", owned

with subtest("the idle snapshotter lets the host unmount it"):
    client.succeed("umount /mnt/layers")
    assert_app_is_right(client, f"{RUN} --rm {APP}")

with subtest("the server restarts"):
    server.succeed("systemctl restart nfs-server.service")
    client.wait_until_succeeds(f"timeout 60 {RUN} --rm {APP} true", timeout=300)
    assert_app_is_right(client, f"{RUN} --rm {APP}")
