# Puts `comity` into the path of the example that reads this: what COMITY names, or a build of these sources. The example
# has set `root`, the folder of the sources, `work`, a folder of its own, and `fail`.
if [ -n "${COMITY:-}" ]; then
  [ -x "$COMITY" ] || fail "COMITY is to be the path of a comity binary, and $COMITY is none"
  mkdir "$work/bin"
  ln -s "$(realpath "$COMITY")" "$work/bin/comity"
  export PATH="$work/bin:$PATH"
else
  (cd "$root" && cargo build --quiet --package agent --bin comity)
  export PATH="${CARGO_TARGET_DIR:-$root/target}/debug:$PATH"
fi
unset COMITY_SOCKET
