#!/bin/sh
# Build a small base image for organisms (sh, awk, grep, sed, coreutils, python3) where no image can be pulled.
#
# usage: [ENGINE=podman] deploy/organisms/base/build.sh [TAG]        (default: docker, knockem/base)
#
# Everything in it comes from Debian packages, fetched with apt-get as this machine is set up to. Needs root, and a
# Debian 12 host (package names of libraries differ between releases). An image that is up to date is left alone.
set -eu

ENGINE=${ENGINE:-docker}
TAG=${1:-knockem/base}
PYTHON=python3.11
PACKAGES="dash mawk grep sed coreutils libacl1 libattr1 libgmp10 libpcre2-8-0 libselinux1 libc6 libgcc-s1
    $PYTHON-minimal lib$PYTHON-minimal lib$PYTHON-stdlib libbz2-1.0 libexpat1 libffi8 liblzma5 libssl3 libuuid1 zlib1g"
# What organisms do not import, and compiling would take most of the time.
UNUSED="test idlelib lib2to3 distutils ensurepip turtledemo tkinter pydoc_data curses dbm sqlite3 wsgiref xmlrpc"

recipe=$(sha256sum "$0" | cut -d ' ' -f 1)
if [ "$("$ENGINE" image inspect --format '{{index .Config.Labels "knockem.recipe"}}' "$TAG" 2>/dev/null)" = "$recipe" ]; then
    echo "$TAG is up to date"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
root=$work/root
mkdir -p "$work/packages" "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/usr/sbin" "$root/etc" "$root/tmp"
for directory in bin lib lib64 sbin; do ln -s "usr/$directory" "$root/$directory"; done

fetch() {
    # shellcheck disable=SC2086 # one argument a package
    (cd "$work/packages" && apt-get -qq -o APT::Sandbox::User=root download $PACKAGES)
}
fetch || { apt-get -qq update && fetch; }
for package in "$work"/packages/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$root"
done

rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/lintian" "$root"/usr/lib/*/gconv
for module in $UNUSED; do rm -rf "$root/usr/lib/$PYTHON/$module"; done
chmod 1777 "$root/tmp"
ln -s "$PYTHON" "$root/usr/bin/python3"
ln -s mawk "$root/usr/bin/awk"
[ -e "$root/usr/bin/sh" ] || ln -s dash "$root/usr/bin/sh"
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
# A read-only container could not keep what it compiles, and would compile at every start.
chroot "$root" "/usr/bin/$PYTHON" -m compileall -q "/usr/lib/$PYTHON"

tar --create --directory "$root" --numeric-owner . | "$ENGINE" import --change "LABEL knockem.recipe=$recipe" \
    --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8' --change 'CMD ["/bin/sh"]' - "$TAG" >/dev/null
echo "$TAG is built"
