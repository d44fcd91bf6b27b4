using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Plans;

namespace GpuHandoff.Checks;

/// <summary>Containers that nobody in them shows to use the card, and of which the policy says something all the same.</summary>
static class ContainerHasTheGpu
{
    public static Check Check { get; } = new(
        "container-has-gpu", Target.Vfio,
        "The nodes that a container was given lead nowhere when the card comes back: what the policy says of that container counts, also while nobody in it has the card open.",
        q => q.Machine.Containers.Select(c => Find(q, c)).OfType<Finding>());

    static Finding? Find(Question q, RunningContainer container)
    {
        var users = q.Policy.For(q.Gpu).Users;
        var says = users.OfContainer(container.Container);
        var id = container.Container.Id;
        if (!container.IsKnown)
        {
            var acts = says != Treatment.Refuse || users.Names(container.Container);
            // By the admin's own word it goes whatever its config says, and what nobody may stop is never stopped.
            return !acts || users.Restarted.Contains(id) || Treating.WhyNever(container.Container, q.Machine) is not null
                ? null
                : new(
                    "container-has-gpu", $"whether {container.Container} was given {q.Gpu} cannot be told",
                    [$"/etc/pve/lxc/{id}.conf cannot be read: Proxmox's cluster file system does not answer, and the policy says {Word(says)} of this container"],
                    "systemctl status pve-cluster tells more; without its config the container is left alone where users.containers, and nothing by its name, is refuse");
        }
        return says == Treatment.Refuse && users.Names(container.Container) && container.Has(q.Gpu, q.Machine, q.By == FreeBy.Unload)
            ? new(
                "container-has-gpu", $"{container.Container} has {q.Gpu} by its config, and the policy refuses to take it from there",
                [$"/etc/pve/lxc/{id}.conf gives it the card, it runs, and users.container says refuse of {id}"],
                $"pct shutdown {id}, or let the plan do it with this in /etc/gpu-handoff.yaml: users: {{container: {{\"{id}\": restart}}}}")
            : null;
    }

    static string Word(Treatment treatment) => treatment switch
    {
        Treatment.Stop => "stop",
        Treatment.Restart => "restart",
        _ => "refuse",
    };
}
