using System.Text;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Screen;

/// <summary>Cards with the guests that they are for: <c>vms</c>.</summary>
static class GuestTable
{
    public static string Of(IReadOnlyList<Shared> cards, IReadOnlyList<Hooked> hooked, string? note)
    {
        var text = new StringBuilder();
        foreach (var card in cards)
        {
            text.Append(card.Gpu.Slot).Append(card.Model is { } model ? $" ({model})" : "").Append(": ").Append(card.Now).Append('\n');
            if (card.Guests is [])
                text.Append("  no guest of this node has it in its configuration\n");
            MachineTable.Columns(text, [.. card.Guests.Select(Row)], "  ");
        }
        if (hooked is not [])
            text.Append("no GPU of this node, and the hook all the same\n");
        MachineTable.Columns(text, [.. hooked.Select(v => new[] { v.ToString(), v.Runs ? "runs" : "off", "hook" })], "  ");
        if (note is not null)
            text.Append("note: ").Append(note).Append('\n');
        return text.ToString();
    }

    static string[] Row(Sharer guest) =>
    [
        guest.ToString(),
        guest.HasIt ? "has it" : guest.Runs ? "runs" : "off",
        guest.Through,
        guest.Hook switch
        {
            Hookscript.Ours => "hook",
            Hookscript.Another => "a hookscript of its own: ours is called only if that does so",
            Hookscript.None => $"no hook, so nothing hands the GPU over: gpu-handoff attach {guest.Id}",
            _ => "",
        },
    ];
}
