#compdef gpu-handoff
# zsh completion for gpu-handoff. Goes to share/zsh/site-functions/_gpu-handoff.

local -a commands looking acting common
local -a leaving setting
commands=(
    'status:print one line a function'
    'plan:print what a hand-over would do'
    'to_vfio:hand the GPU to vfio-pci, ready for a VM'
    'to_nvidia:hand the GPU back to the host'
    'to_host:hand the GPU back to the host'
    'handoff:the same by argument'
    'leases:tell which GPU is lent to which VM'
    'reconcile:take back what is lent to VMs that are gone'
    'recover:bring what a killed run left to an end'
    'hook:what Proxmox calls when a VM starts and stops'
    'attach:give a VM of Proxmox the GPU and the hook'
    'detach:take back what attach gave a VM'
    'vms:list the VMs and containers that each GPU is for'
    'policy:show the policy that holds, or check a policy file'
    'demo:show a hand-over on a simulated host'
    'version:print the version'
)
common=(
    '--gpu[which GPU]:address, index or all:(all)'
    '--json[print data instead of words]'
    '--help[show help]'
)
looking=(
    '--policy[how nvidia is made to let go]:way:(unload unbind auto)'
    '*--accept-neighbour[a stranger in the IOMMU group that may go too]:address:'
    '--claim[take to the host even what was on vfio-pci before]'
    '--reset[reset the card before vfio-pci gets it]'
    '--allow-rescan[the last resort: the slot off the bus and a rescan]'
    '--bar1-size[the size of BAR 1 in the VM]:size:'
)
leaving=(
    '--stop-users[stop what uses the GPU instead of refusing]'
    '--lose-console[even where the text console ends with it until the next boot]'
)
acting=(
    '(-n --dry-run)'{-n,--dry-run}'[print the plan and change nothing]'
    '--timeout[how long the steps may take together]:seconds:'
    '--call-timeout[how long the kernel may take for one call]:seconds:'
    '--wait[how long to wait for a VM that still has the GPU]:seconds:'
    '(-q --quiet)'{-q,--quiet}'[tell only what went wrong]'
    '(-v --verbose)'{-v,--verbose}'[tell everything]'
)
setting=(
    '(-n --dry-run)'{-n,--dry-run}'[print the plan and change nothing]'
    '(-q --quiet)'{-q,--quiet}'[tell only what went wrong]'
    '(-v --verbose)'{-v,--verbose}'[tell everything]'
    '--root[a recorded machine]:folder:_files -/'
)

if ((CURRENT == 2)); then
    _describe -t commands command commands
    _arguments '--help[show help]' '--version[print the version]'
    return
fi
case $words[2] in
    status)
        shift words; ((CURRENT--))
        _arguments $common '--root[a recorded machine]:folder:_files -/' \
            '(-v --verbose)'{-v,--verbose}'[tell everything]'
        ;;
    plan)
        shift words; ((CURRENT--))
        _arguments $common $looking $leaving '--root[a recorded machine]:folder:_files -/' '1:target:(to_vfio to_nvidia to_host)'
        ;;
    attach)
        shift words; ((CURRENT--))
        _arguments $common $setting '--mapping[through a resource mapping of the cluster]:name:' \
            '--primary[as the first display of the VM]' '1:VM:'
        ;;
    detach)
        shift words; ((CURRENT--))
        _arguments '--json[print data instead of words]' '--help[show help]' $setting '1:VM:'
        ;;
    vms)
        shift words; ((CURRENT--))
        _arguments '--json[print data instead of words]' '--help[show help]' '--root[a recorded machine]:folder:_files -/'
        ;;
    leases)
        shift words; ((CURRENT--))
        _arguments '--json[print data instead of words]' '--help[show help]'
        ;;
    reconcile)
        shift words; ((CURRENT--))
        _arguments '--watch[stay with this VM until its GPU is home]:MANAGER\:VM:' '--no-wait[leave a run alone that is at work]' \
            '--json[print data instead of words]' '--help[show help]' \
            '(-q --quiet)'{-q,--quiet}'[tell only what went wrong]' '(-v --verbose)'{-v,--verbose}'[tell everything]'
        ;;
    recover)
        shift words; ((CURRENT--))
        _arguments '--no-wait[leave a run alone that is at work]' '--unwedge[take the mark off where the call has come back]' \
            '--json[print data instead of words]' '--help[show help]' \
            '(-q --quiet)'{-q,--quiet}'[tell only what went wrong]' '(-v --verbose)'{-v,--verbose}'[tell everything]'
        ;;
    hook)
        shift words; ((CURRENT--))
        _arguments '(-n --dry-run)'{-n,--dry-run}'[print the plan and change nothing]' '--json[print data instead of words]' \
            '--root[a recorded machine]:folder:_files -/' '--help[show help]' '1:VM:' '2:phase:(pre-start post-start pre-stop post-stop)'
        ;;
    policy)
        shift words; ((CURRENT--))
        case $words[2] in
            show) _arguments $common '--root[a recorded machine]:folder:_files -/' '1:what:(show)' ;;
            check) _arguments '--json[print data instead of words]' '--help[show help]' '1:what:(check)' '2:file:_files' ;;
            *) _arguments '--help[show help]' '1:what:(show check)' ;;
        esac
        ;;
    handoff)
        shift words; ((CURRENT--))
        _arguments $common $looking $leaving $acting '1:target:(vfio nvidia host)'
        ;;
    to_vfio|to-vfio)
        shift words; ((CURRENT--))
        _arguments $common $looking $leaving $acting
        ;;
    to_nvidia|to-nvidia|to_host|to-host)
        shift words; ((CURRENT--))
        _arguments $common $looking $acting
        ;;
esac
