#!/usr/bin/env bash
# Gets the model files that the workflows use from Hugging Face into ComfyUI's model folders. models.tsv says which.
set -euo pipefail

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
TABLE=$HERE/models.tsv
HUB=${HF_ENDPOINT:-https://huggingface.co}
# Kept free beside the models.
SPARE=1000000000
LEFT='It is left alone: move it away and run this again.'

usage() {
    cat <<'END'
usage: download_models.sh [--dry-run] [--verify] [--models FOLDER] ltx2|ltx23|ltx23-dev|svd|all|list

  ltx2, ltx23, ltx23-dev, svd, all
                    get the files of these models; what is there stays, what was begun goes on
  list              only say which files there are and which of them are missing
  --dry-run         ask Hugging Face, and say what would be done; nothing is written
  --verify          also compare the checksums of the files that are there, which takes minutes
  --models FOLDER   ComfyUI's folder "models"; without it, the one of the ComfyUI that this pack lies in,
                    else the one that docker compose mounts (XAVI9_DATA in docker/.env)

A model whose licence has to be accepted needs HF_TOKEN in the environment.
END
}

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; return 1; }
gb() { awk -v bytes="$1" 'BEGIN { printf "%.1f GB", bytes / 1e9 }'; }
size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }

# The lines of the table, of one set or of all.
rows() { awk -F '\t' -v wanted="$1" '!/^#/ && (wanted == "all" || index("," $1 ",", "," wanted ","))' "$TABLE"; }

# Where the models go, and why there.
choose_folder() {
    # Also where HOME is not set.
    local comfyui data home=~
    comfyui=$(cd "$HERE/../../.." && pwd)
    if [[ -n $MODELS ]]; then
        WHY='asked for'
    elif [[ -f $comfyui/main.py && -d $comfyui/models ]]; then
        MODELS=$comfyui/models WHY='of the ComfyUI that this pack lies in'
    else
        [[ -n ${XAVI9_DATA:-} || ! -e $HERE/.env || -r $HERE/.env ]] ||
            { say "User $(id -u) cannot read $HERE/.env, which says where the models lie. Use --models." >&2; exit 2; }
        # As compose reads .env: no quotes around a value, else no comment and no spaces.
        data=${XAVI9_DATA:-$(sed -nE 's/^[[:space:]]*(export[[:space:]]+)?XAVI9_DATA=[[:space:]]*//p' "$HERE/.env" \
            2>/dev/null | tail -n 1 |
            sed -E "s/^(['\"])(.*)\1.*/\2/; t; s/(^|[[:space:]]+)#.*//; s/[[:space:]]+$//" || true)}
        data=${data:-./data}
        # Compose would fill in variables and take what follows a colon for something else.
        [[ $data != *[\$:]* ]] ||
            { say "XAVI9_DATA is $data. Write the whole path, without \$ and colons, or use --models." >&2; exit 2; }
        [[ $data != "~"* ]] || data=$home${data#"~"}
        MODELS=$(cd "$HERE" && realpath -m "$data/models") WHY="docker compose's, from XAVI9_DATA"
    fi
    MODELS=$(realpath -m "$MODELS")
    PARTS=$MODELS/.xavi9-downloads
}

# For a subshell, which becomes curl, with the token, if there is one; it goes through a file descriptor, since anybody
# can read a command line.
hub() {
    local token=${HF_TOKEN:-}
    exec curl --silent --show-error --suppress-connect-headers --connect-timeout 20 --speed-limit 1000 --speed-time 60 \
        --config <(printf '%s\n' "${token:+header = \"Authorization: Bearer $token\"}") "$@"
}

# What Hugging Face says of a file, without following it to where it is stored: sets SIZE and SHA256.
ask() {
    local repository=$1 path=$2 answer status code
    answer=$(hub --head "$HUB/$repository/resolve/main/$path" 2>&1) ||
        { fail "  $HUB cannot be reached (${answer##*curl: })."; return; }
    answer=$(tr -d '\r' <<<"$answer")
    status=$(awk 'NR == 1 { print $2 }' <<<"$answer")
    code=$(header x-error-code "$answer")
    SIZE=$(header x-linked-size "$answer")
    SHA256=$(header x-linked-etag "$answer" | tr -d '"')
    if [[ $status == 404 || $code == RepoNotFound ]]; then
        fail "  Hugging Face has no $path in $repository any more. Look for it on $HUB/$repository."
    elif [[ $status == 30[178] && -z $SIZE ]]; then
        fail "  Hugging Face has moved $repository to $(header location "$answer"). Get $path from there by hand."
    elif [[ $status == 401 || $status == 403 ]]; then
        explain_refusal "$repository" "$status"
    elif [[ ! $SIZE =~ ^[0-9]+$ || ! $SHA256 =~ ^[0-9a-f]{64}$ ]]; then
        fail "  Hugging Face tells neither size nor checksum of $path (HTTP $status). Try again later."
    fi
}

header() { awk -F ': ' -v name="$1" 'tolower($1) == name { value = $2 } END { print value }' <<<"$2"; }

explain_refusal() {
    if [[ -z ${HF_TOKEN:-} ]]; then
        fail "  Its licence has to be accepted first, and HF_TOKEN is not set:
    1. open $HUB/$1, log in and accept the licence
    2. make a token that may read: $HUB/settings/tokens
    3. export HF_TOKEN=...    and run this again"
    elif [[ $2 == 401 ]]; then
        fail "  Hugging Face does not know the token in HF_TOKEN: it is not whole, has expired or was deleted.
    Make a new one: $HUB/settings/tokens
    or unset HF_TOKEN: only files whose licence has to be accepted need it"
    else
        fail "  Hugging Face refuses it to the token in HF_TOKEN:
    1. open $HUB/$1 as the owner of the token and accept the licence
    2. a fine-grained token must also allow gated repositories: $HUB/settings/tokens"
    fi
}

# Goes on where an earlier run stopped, and after each break in the line, as long as there is something new each time.
transfer() {
    local url=$1 part=$2 before status bar=--silent
    [[ -t 2 ]] && bar=--progress-bar
    for _ in 1 2 3; do
        while before=$(size_of "$part"); ((before < SIZE)); do
            status=0
            # Beside this shell, which else would hear of a signal when the file is there; and it must not hold the lock.
            hub --no-silent "$bar" --fail --location --continue-at - --output "$part" "$url" 9>&- &
            CURL=$!
            wait "$CURL" || status=$?
            CURL=''
            # 23: it could not write.
            ((status == 23)) &&
                { fail "  The disk is full, or $PARTS cannot be written. What came stays for the next run."; return; }
            (($(size_of "$part") > before)) || break
        done
        (($(size_of "$part") >= SIZE)) && return
        sleep 5
    done
    fail "  The download stopped at $(gb "$(size_of "$part")") of $(gb "$SIZE"). Run this again: it goes on from there.
  If it stops at the same place again, remove $part"
}

matches() { [[ $(sha256sum "$1" | cut -d ' ' -f 1) == "$SHA256" ]]; }

# One file: there already, downloaded now, or a reason why not.
get() {
    local folder=$1 repository=$2 path=$3 size=$4 known=$5 name target part
    name=${path##*/}
    target=$MODELS/$folder/$name
    say "$folder/$name"
    [[ -e $target || ! -L $target ]] ||
        { fail "  It is a link to $(readlink "$target"), which is not there. Is a disk not mounted? $LEFT"; return; }
    ask "$repository" "$path" || return
    [[ $SHA256 == "$known" ]] || say "  Hugging Face has another file there now than this pack knows: sha256 $SHA256."
    if [[ -e $target ]]; then
        # What this pack knows is as good as what has come into its place.
        (($(size_of "$target") != size)) || SIZE=$size SHA256=$known
        (($(size_of "$target") == SIZE)) ||
            { fail "  A file of this name is there, of $(size_of "$target") bytes instead of $SIZE. $LEFT"; return; }
        [[ -z $VERIFY ]] || matches "$target" ||
            { fail "  It is there, but its checksum is not $SHA256. $LEFT"; return; }
        say "  is there${VERIFY:+, checksum right}"
        return
    fi
    part=$PARTS/$name.$SHA256
    if [[ -n $DRY ]]; then
        say "  would be downloaded: $(gb $((SIZE - $(size_of "$part")))) of $(gb "$SIZE")"
        return
    fi
    mkdir -p "$MODELS/$folder" && [[ -w $MODELS/$folder ]] ||
        { fail "  $MODELS/$folder is no folder that user $(id -u) can write to."; return; }
    say "  $(gb "$SIZE")"
    transfer "$HUB/$repository/resolve/main/$path" "$part" || return
    say "  comparing its checksum"
    matches "$part" ||
        { rm -f "$part"; fail "  What came has another checksum than $SHA256. It was removed: run again."; return; }
    # -n: what has come into its place meanwhile stays, and the download too.
    mv -n "$part" "$target" && [[ ! -e $part ]] || { fail "  It could not be put in its place: $target"; return; }
    say "  there now"
}

# Bytes of the files that are missing, less what of them has come.
missing() {
    local bytes=0 folder path size known
    while IFS=$'\t' read -r _ folder _ path size known; do
        [[ -e $MODELS/$folder/${path##*/} ]] ||
            bytes=$((bytes + size - $(size_of "$PARTS/${path##*/}.$known")))
    done < <(rows "$1")
    say "$bytes"
}

free() {
    local folder=$1
    until [[ -d $folder ]]; do folder=$(dirname "$folder"); done
    df -B1 --output=avail "$folder" | tail -n 1
}

list() {
    local set folder path size state
    while IFS=$'\t' read -r set folder _ path size _; do
        state=missing
        [[ -e $MODELS/$folder/${path##*/} ]] && state=there
        printf '%-20s %-8s %8s  %s\n' "$set" "$state" "$(gb "$size")" "$folder/${path##*/}"
    done < <(rows all)
}

DRY='' VERIFY='' MODELS='' WANTED='' CURL=''
while (($#)); do
    case $1 in
    --dry-run) DRY=1 ;;
    --verify) VERIFY=1 ;;
    --models) MODELS=${2:?--models needs a folder}; shift ;;
    -h | --help) usage; exit ;;
    ltx2 | ltx23 | ltx23-dev | svd | all | list) WANTED=$1 ;;
    *) say "download_models.sh does not know '$1'." >&2; usage >&2; exit 2 ;;
    esac
    shift
done
choose_folder
say "Models: $MODELS ($WHY)"
case $WANTED in
'') usage >&2; say >&2; list >&2; exit 2 ;;
list) list; exit ;;
esac
if [[ ! ${HF_TOKEN:-} =~ ^[][!#-Z^-~]*$ ]]; then
    say "HF_TOKEN has spaces, quotes or an end of line in it. Export it again: one word, which begins with hf_" >&2
    exit 2
fi
for program in curl sha256sum flock; do
    command -v "$program" >/dev/null ||
        { say "$program is missing. On Debian or Ubuntu: sudo apt-get install curl coreutils util-linux" >&2; exit 1; }
done

NEEDED=$(missing "$WANTED") FREE=$(free "$MODELS")
say "Still to come: $(gb "$NEEDED"). Free there: $(gb "$FREE")."
if ((NEEDED && NEEDED + SPARE > FREE)); then
    say "That does not fit, with $(gb $SPARE) to spare. Make room, or choose another disk: --models or XAVI9_DATA." >&2
    [[ -n $DRY ]] || exit 1
fi
if [[ -z $DRY ]]; then
    mkdir -p "$PARTS" 2>/dev/null && [[ -w $PARTS ]] ||
        { say "User $(id -u) cannot write to $MODELS. Give it to that user, or choose another: --models" >&2; exit 1; }
    exec 9>"$PARTS/lock"
    flock -n 9 || { say "Another download_models.sh is at work in $MODELS." >&2; exit 1; }
    trap '[[ -z $CURL ]] || kill "$CURL"
        echo; say "Interrupted. Run the same again, and it goes on from here." >&2; exit 130' INT TERM
fi
FAILED=()
while IFS=$'\t' read -r _ folder repository path size known; do
    get "$folder" "$repository" "$path" "$size" "$known" || FAILED+=("$folder/${path##*/}")
done < <(rows "$WANTED")
if ((${#FAILED[@]})); then
    say "Failed: ${FAILED[*]}" >&2
    exit 1
fi
if [[ -z $DRY ]]; then
    rm -f "$PARTS/lock"
    rmdir "$PARTS" 2>/dev/null || true
    say "All there. In an open editor press R."
fi
