#!/usr/bin/env bash
# Looks whether this machine can run the containers of compose.yaml, makes .env and the data folders, and logs in to
# NVIDIA's registry if a Cosmos is to be started. Safe to repeat.
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
# Who ComfyUI is to run as: who calls this, with sudo or without, and never root.
ME=${SUDO_UID:-$EUID} MY_GROUP=${SUDO_GID:-$(id -g)}
FAILED=0
# A 48 GB card has some of these less (cosmos3 and predict1 in NVIDIA's support matrices).
NIM_MIB=45000
TOOLKIT=https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html

good() { printf 'good   %s\n' "$*"; }
note() { printf 'note   %s\n' "$*"; }
# What is wrong, and how to mend it.
bad() {
    printf 'WRONG  %s\n' "$1"
    printf '       %s\n' "${@:2}"
    FAILED=1
}

# The value of a name as compose has it, else a default: the environment's; that of .env, which is read and never
# executed, without the quotes around it, or else without a comment and spaces.
value() {
    local found=${!1:-}
    [[ -n $found ]] || found=$(sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1=[[:space:]]*//p" .env 2>/dev/null |
        tail -n 1 | sed -E "s/^(['\"])(.*)\1.*/\2/; t; s/(^|[[:space:]]+)#.*//; s/[[:space:]]+$//" || true)
    printf %s "${found:-${2:-}}"
}
gigabytes() { awk -v kib="$1" 'BEGIN { printf "%.0f", kib * 1024 / 1e9 }'; }
meminfo() { awk -v name="$1:" '$1 == name { print $2 }' /proc/meminfo; }
free_on() {
    local folder=$1
    until [[ -d $folder ]]; do folder=$(dirname "$folder"); done
    df -k --output=avail "$folder" | tail -n 1
}
data_folder() {
    # Also where HOME is not set.
    local data home=~
    data=$(value XAVI9_DATA ./data)
    [[ $data != "~"* ]] || data=$home${data#"~"}
    realpath -m "$data"
}
user_of_comfyui() { printf '%s:%s' "$(value XAVI9_UID 1000)" "$(value XAVI9_GID 1000)"; }
starts() { [[ ,$(value COMPOSE_PROFILES), == *,$1,* ]]; }

make_env() {
    if [[ -e .env && ! -r .env ]]; then
        bad "User $(id -un) cannot read $PWD/.env." "sudo chown $(id -un) $PWD/.env"
        return
    elif [[ -e .env ]]; then
        good ".env is there"
        # It was copied by hand, perhaps, and has a key in it.
        [[ $(stat -c %a .env) == *00 ]] || ! chmod go= .env 2>/dev/null || good ".env: nobody else may read it now"
    elif ! (umask 077 && cp .env.example .env) 2>/dev/null; then
        bad "User $(id -un) cannot make a .env in $PWD." "Put this repository into a folder of your own."
        return
    else
        # Root itself leaves the example's user.
        ((ME == 0)) || sed -i "s/^XAVI9_UID=.*/XAVI9_UID=$ME/; s/^XAVI9_GID=.*/XAVI9_GID=$MY_GROUP/" .env
        ((EUID)) || chown "$ME:$MY_GROUP" .env
        good ".env made; look at it: which Cosmos to start, where models lie, who may reach the editor"
    fi
    if ((ME)) && [[ -z $(value XAVI9_UID)$(value XAVI9_GID) ]]; then
        printf '\nXAVI9_UID=%s\nXAVI9_GID=%s\n' "$ME" "$MY_GROUP" >>.env
        good "XAVI9_UID and XAVI9_GID put into .env: ComfyUI runs as $(id -un "$ME")"
    fi
}

check_machine() {
    local machine
    machine=$(uname -m)
    case $machine in
    x86_64) good "processor: x86_64" ;;
    aarch64)
        good "processor: aarch64"
        ! starts predict1 || bad "COMPOSE_PROFILES names predict1, which NVIDIA makes for x86_64 only." \
            "Set COMPOSE_PROFILES=cosmos3 in .env: Cosmos3 runs on this machine."
        ;;
    *) bad "The processor is $machine; the images are made for x86_64 and aarch64." ;;
    esac
}

check_gpu() {
    local answer name driver memory most=0
    command -v nvidia-smi >/dev/null ||
        { bad "nvidia-smi is missing: there is no NVIDIA driver." "Install it, 580 or newer, and restart."; return; }
    # Without a card it says so and exits with 0.
    if ! answer=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader,nounits 2>&1) ||
        [[ $answer != *,* ]]; then
        bad "nvidia-smi says: $answer" "Mend the driver; after an update of it, restart the machine."
        return
    fi
    while IFS=, read -r name driver memory; do
        driver=${driver# } memory=${memory# }
        if [[ ! $driver =~ ^[0-9] ]]; then
            bad "$name: nvidia-smi says $driver for its driver." "Mend the driver; after an update of it, restart."
        elif ((${driver%%.*} < 580)); then
            bad "$name: the driver is $driver; CUDA 13 needs 580 or newer." "Update the driver, then restart."
        elif [[ $memory =~ ^[0-9]+$ ]]; then
            good "GPU: $name, driver $driver, $((memory * 1048576 / 1000000000)) GB of its own"
            ((memory <= most)) || most=$memory
        else
            # On a DGX Spark the GPU has none of its own, and nvidia-smi says [N/A].
            good "GPU: $name, driver $driver, the machine's memory"
            most=$NIM_MIB
        fi
    done <<<"$answer"
    if ((most < NIM_MIB)) && { starts cosmos3 || starts predict1; }; then
        bad "COMPOSE_PROFILES starts a Cosmos, and no GPU here has the 48 GB that the smallest one needs." \
            "Empty COMPOSE_PROFILES in .env; a Cosmos elsewhere is named by COSMOS_NIM_URL."
    fi
}

check_memory() {
    local total free
    total=$(gigabytes "$(meminfo MemTotal)") free=$(gigabytes "$(meminfo MemAvailable)")
    if ((total >= 60)); then
        good "memory: $total GB, $free GB of them free"
    else
        note "memory: $total GB. LTX-2 in FP8 has 40 GB of files; what does not fit is read again and again."
    fi
    if starts predict1; then
        ((total >= 90)) || note "memory: NVIDIA asks for 90 GB for each of Predict1's containers."
        [[ -n $(value COSMOS_TEXT2WORLD_URL)$(value COSMOS_VIDEO2WORLD_URL)$(value COSMOS_NIM_URL) ]] ||
            bad "COMPOSE_PROFILES names predict1, and ComfyUI does not know where that is." \
                "Set COSMOS_TEXT2WORLD_URL and COSMOS_VIDEO2WORLD_URL in .env: the example has both."
    fi
}

check_docker() {
    local answer version user
    user=$(id -un)
    command -v docker >/dev/null ||
        { bad "docker is missing." "Install Docker Engine: https://docs.docker.com/engine/install/"; return; }
    if ! answer=$(docker info 2>&1); then
        case $answer in
        *"permission denied"*)
            bad "User $user may not use Docker." "sudo usermod -aG docker $user, then log out and in again"
            ;;
        # Older ones have a last line that says nothing.
        *)
            answer=$(grep -v '^errors pretty printing info' <<<"$answer" | tail -n 1)
            bad "Docker does not answer: ${answer#ERROR: }" "sudo systemctl start docker"
            ;;
        esac
        return
    fi
    # Only these lines: the name of a DGX Spark's kernel has nvidia in it too.
    if grep -Eq '^ *Runtimes:.* nvidia( |$)|^ *cdi: nvidia\.com/gpu' <<<"$answer"; then
        good "Docker, with NVIDIA's container toolkit"
    else
        bad "Docker cannot give a GPU to a container: NVIDIA's container toolkit is missing." "Install it: $TOOLKIT" \
            "then: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    fi
    version=$(docker compose version --short 2>/dev/null) ||
        { bad "docker compose is missing." "Install the package docker-compose-plugin, 2.24 or newer."; return; }
    version=${version#v}
    if [[ $(printf '2.24\n%s\n' "$version" | sort -V | head -n 1) == 2.24 ]]; then
        good "docker compose $version"
    else
        bad "docker compose is $version; compose.yaml needs 2.24 or newer." "Update the package docker-compose-plugin."
    fi
}

check_disk() {
    local images data free need=20
    # Some releases exit with 0 where Docker does not answer.
    images=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null) || images=''
    images=${images:-/var/lib/docker}
    # The image of ComfyUI; each NIM brings an image and some 50 GB of weights into Docker's own folder.
    starts cosmos3 && need=$((need + 100))
    starts predict1 && need=$((need + 200))
    free=$(gigabytes "$(free_on "$images")")
    if ((free >= need)); then
        good "disk: $free GB free in $images, for images and the NIM's weights"
    else
        note "disk: $free GB free in $images. Images and the NIM's weights, if not there yet, take $need GB."
    fi
    data=$(realpath -m "$(data_folder)/models")
    free=$(gigabytes "$(free_on "$data")")
    need=51
    [[ -d $data ]] && need=$((need - $(gigabytes "$(du -sk "$data" | cut -f 1)")))
    if ((free >= need)); then
        good "disk: $free GB free in $data"
    elif starts cosmos3 || starts predict1; then
        note "disk: $free GB free in $data. LTX-2 and SVD-XT, if you want them too, take $need GB more."
    else
        bad "disk: $free GB free in $data; LTX-2 and SVD-XT take $need GB more." \
            "Make room, or set XAVI9_DATA in .env to a folder on another disk."
    fi
}

# Docker would make them itself, but as root, and ComfyUI could not write there.
make_folders() {
    local data owner user folder
    data=$(data_folder) user=$(user_of_comfyui)
    [[ $(value XAVI9_DATA ./data) =~ ^([./]|~$|~/) && $data != *[\$:]* ]] ||
        { bad "XAVI9_DATA is $(value XAVI9_DATA), which docker compose does not take for a folder as it stands." \
            "Let it start with /, ./, ../ or ~/ in .env, and have neither \$ nor a colon in it."; return; }
    for folder in models input output user; do
        [[ -d $data/$folder ]] && continue
        mkdir -p "$data/$folder" 2>/dev/null ||
            { bad "$data/$folder cannot be made by $(id -un)." "Set XAVI9_DATA in .env to their own folder."; return; }
        ((EUID)) || chown "$user" "$data/$folder"
    done
    good "folders: models, input, output and user in $data"
    owner=$(stat -c %u:%g "$data/models")
    [[ $owner == "$user" ]] ||
        bad "ComfyUI would run as $user, and $data/models belongs to $owner." \
            "sudo chown -R $user $data    or set XAVI9_UID and XAVI9_GID in .env to the owner's"
}

log_in() {
    local key answer
    if ! starts cosmos3 && ! starts predict1; then
        note "No Cosmos is started: COMPOSE_PROFILES in .env names neither cosmos3 nor predict1."
        return
    fi
    key=$(value NGC_API_KEY)
    if [[ -z $key ]]; then
        bad "NGC_API_KEY is empty, and a Cosmos is to be started." \
            "Make a key at https://org.ngc.nvidia.com/setup/api-keys and put it into .env after NGC_API_KEY="
    elif [[ ! $key =~ ^[!-~]+$ ]]; then
        bad "NGC_API_KEY has spaces, quotes of another alphabet or an end of line of Windows in it." \
            "It is one word. Write it again where it is set: after NGC_API_KEY= in .env, or in this shell."
    elif ! command -v docker >/dev/null; then
        note "The login to nvcr.io waits for docker."
    elif answer=$(printf %s "$key" | docker login nvcr.io --username "\$oauthtoken" --password-stdin 2>&1); then
        good "logged in to nvcr.io"
        ((EUID == ME)) || note "That login is root's: run docker compose with sudo too, or this once more without it."
    else
        bad "The login to nvcr.io failed: ${answer//"$key"/***}" \
            "unauthorized, denied: see at https://org.ngc.nvidia.com/setup/api-keys whether the key is valid and" \
            "may read the catalog. Anything else: see whether this machine reaches https://nvcr.io"
        [[ $key == nvapi-* ]] || note "NGC_API_KEY does not start with nvapi-, as all but old keys do."
    fi
}

make_env
check_machine
check_gpu
check_memory
check_docker
check_disk
make_folders
log_in
if ((FAILED)); then
    echo "Mend what is WRONG and run this again."
    exit 1
fi
cat <<'END'
All good. Next, in this folder:
  ./download_models.sh ltx2    LTX-2, 41 GB; or ltx23, ltx23-dev, svd, all
  docker compose up -d         builds and starts; then http://localhost:8188
END
