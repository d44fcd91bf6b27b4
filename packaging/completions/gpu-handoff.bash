# bash completion for gpu-handoff. Goes to share/bash-completion/completions/gpu-handoff.
_gpu_handoff() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' words='' i
    local acting='--gpu --policy --accept-neighbour --claim --reset --allow-rescan --bar1-size
        --dry-run --timeout --call-timeout --wait --json --quiet --verbose --help'
    COMPREPLY=()

    case $previous in
        --gpu) words="all $(_gpu_handoff_indices)" ;;
        --policy) words='unload unbind auto' ;;
        --root)
            compopt -o dirnames
            return
            ;;
        --accept-neighbour | --bar1-size | --timeout | --mapping | --watch) return ;;
    esac
    if [[ -z $words ]]; then
        for ((i = 1; i < COMP_CWORD; i++)); do
            [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }
        done
        case $command in
            '') words='status plan to_vfio to_nvidia to_host handoff leases reconcile recover hook attach detach vms policy demo version --help --version' ;;
            status) words='--gpu --root --json --verbose --help' ;;
            plan)
                words='to_vfio to_nvidia to_host --gpu --policy --accept-neighbour --stop-users --lose-console --claim --reset --allow-rescan --bar1-size
                    --json --root --help'
                ;;
            handoff) words="vfio nvidia host $acting --stop-users --lose-console" ;;
            to_vfio | to-vfio) words="$acting --stop-users --lose-console" ;;
            to_nvidia | to-nvidia | to_host | to-host) words=$acting ;;
            policy)
                case ${COMP_WORDS[i + 1]} in
                    show) words='--gpu --json --root --help' ;;
                    check)
                        compopt -o default
                        words='--json --help'
                        ;;
                    *) words='show check --help' ;;
                esac
                ;;
            attach) words='--gpu --mapping --primary --dry-run --json --quiet --verbose --root --help' ;;
            detach) words='--dry-run --json --quiet --verbose --root --help' ;;
            vms) words='--json --root --help' ;;
            leases) words='--json --help' ;;
            reconcile) words='--watch --no-wait --json --quiet --verbose --help' ;;
            recover) words='--no-wait --unwedge --json --quiet --verbose --help' ;;
            hook) words='pre-start post-start pre-stop post-stop --dry-run --json --root --help' ;;
            *) words='--help' ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

# An address has colons, at which readline splits words; an index names a card without them.
_gpu_handoff_indices() {
    gpu-handoff status 2> /dev/null | sed -n 's/^.* \([^ ]*\)\.[0-7] driver=.*/\1/p' | sort -u | awk '{ print NR - 1 }'
}

complete -F _gpu_handoff gpu-handoff
