# fish completion for gpu-handoff. Goes to share/fish/vendor_completions.d/gpu-handoff.fish.
complete -c gpu-handoff -f
complete -c gpu-handoff -n __fish_use_subcommand -a status -d 'Print one line a function'
complete -c gpu-handoff -n __fish_use_subcommand -a plan -d 'Print what a hand-over would do'
complete -c gpu-handoff -n __fish_use_subcommand -a to_vfio -d 'Hand the GPU to vfio-pci, ready for a VM'
complete -c gpu-handoff -n __fish_use_subcommand -a to_nvidia -d 'Hand the GPU back to the host'
complete -c gpu-handoff -n __fish_use_subcommand -a to_host -d 'Hand the GPU back to the host'
complete -c gpu-handoff -n __fish_use_subcommand -a handoff -d 'The same by argument'
complete -c gpu-handoff -n __fish_use_subcommand -a leases -d 'Tell which GPU is lent to which VM'
complete -c gpu-handoff -n __fish_use_subcommand -a reconcile -d 'Take back what is lent to VMs that are gone'
complete -c gpu-handoff -n __fish_use_subcommand -a recover -d 'Bring what a killed run left to an end'
complete -c gpu-handoff -n __fish_use_subcommand -a hook -d 'What Proxmox calls when a VM starts and stops'
complete -c gpu-handoff -n __fish_use_subcommand -a attach -d 'Give a VM of Proxmox the GPU and the hook'
complete -c gpu-handoff -n __fish_use_subcommand -a detach -d 'Take back what attach gave a VM'
complete -c gpu-handoff -n __fish_use_subcommand -a vms -d 'List the VMs and containers that each GPU is for'
complete -c gpu-handoff -n __fish_use_subcommand -a policy -d 'Show the policy that holds, or check a policy file'
complete -c gpu-handoff -n __fish_use_subcommand -a demo -d 'Show a hand-over on a simulated host'
complete -c gpu-handoff -n __fish_use_subcommand -a version -d 'Print the version'
complete -c gpu-handoff -n __fish_use_subcommand -l version -d 'Print the version'
complete -c gpu-handoff -l help -s h -d 'Show help'
complete -c gpu-handoff -n '__fish_seen_subcommand_from plan' -a 'to_vfio to_nvidia to_host'
complete -c gpu-handoff -n '__fish_seen_subcommand_from handoff' -a 'vfio nvidia host'

complete -c gpu-handoff -n '__fish_seen_subcommand_from hook' -a 'pre-start post-start pre-stop post-stop'
complete -c gpu-handoff -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show check' -a 'show check'
complete -c gpu-handoff -n '__fish_seen_subcommand_from check' -F

set --local act to_vfio to-vfio to_nvidia to-nvidia to_host to-host handoff
complete -c gpu-handoff -n "__fish_seen_subcommand_from status plan show attach $act" -l gpu -x -a all -d 'Which GPU'
complete -c gpu-handoff -n "__fish_seen_subcommand_from status plan leases reconcile recover hook attach detach vms show check $act" -l json -d 'Print data instead of words'
complete -c gpu-handoff -n "__fish_seen_subcommand_from status plan show hook attach detach vms" -l root -x -a '(__fish_complete_directories)' \
    -d 'A recorded machine'
complete -c gpu-handoff -n "__fish_seen_subcommand_from plan $act" -l policy -x -a 'unload unbind auto' \
    -d 'How nvidia is made to let go'
complete -c gpu-handoff -n "__fish_seen_subcommand_from plan $act" -l accept-neighbour -x \
    -d 'A stranger in the IOMMU group that may go too'
complete -c gpu-handoff -n '__fish_seen_subcommand_from plan to_vfio to-vfio handoff' -l stop-users \
    -d 'Stop what uses the GPU instead of refusing'
complete -c gpu-handoff -n '__fish_seen_subcommand_from plan to_vfio to-vfio handoff' -l lose-console \
    -d 'Even where the text console ends with it until the next boot'
complete -c gpu-handoff -n "__fish_seen_subcommand_from plan $act" -l claim \
    -d 'Take to the host even what was on vfio-pci before'
complete -c gpu-handoff -n "__fish_seen_subcommand_from plan $act" -l reset -d 'Reset the card before vfio-pci gets it'
complete -c gpu-handoff -n "__fish_seen_subcommand_from plan $act" -l allow-rescan \
    -d 'The last resort: the slot off the bus and a rescan'
complete -c gpu-handoff -n "__fish_seen_subcommand_from plan $act" -l bar1-size -x -d 'The size of BAR 1 in the VM'
complete -c gpu-handoff -n "__fish_seen_subcommand_from hook attach detach $act" -l dry-run -s n -d 'Print the plan and change nothing'
complete -c gpu-handoff -n "__fish_seen_subcommand_from $act" -l timeout -x -d 'How many seconds it may take'
complete -c gpu-handoff -n "__fish_seen_subcommand_from $act" -l call-timeout -x -d 'How many seconds one call may take'
complete -c gpu-handoff -n "__fish_seen_subcommand_from $act" -l wait -x -d 'How many seconds to wait for a VM'
complete -c gpu-handoff -n "__fish_seen_subcommand_from reconcile recover" -l no-wait -d 'Leave a run alone that is at work'
complete -c gpu-handoff -n "__fish_seen_subcommand_from reconcile" -l watch -x -d 'Stay with this VM until its GPU is home'
complete -c gpu-handoff -n "__fish_seen_subcommand_from recover" -l unwedge -d 'Take the mark off where the call has come back'
complete -c gpu-handoff -n "__fish_seen_subcommand_from reconcile recover attach detach $act" -l quiet -s q -d 'Tell only what went wrong'
complete -c gpu-handoff -n "__fish_seen_subcommand_from status reconcile recover attach detach $act" -l verbose -s v -d 'Tell everything'
complete -c gpu-handoff -n '__fish_seen_subcommand_from attach' -l mapping -x -d 'Through a resource mapping of the cluster'
complete -c gpu-handoff -n '__fish_seen_subcommand_from attach' -l primary -d 'As the first display of the VM'
