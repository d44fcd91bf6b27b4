using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>The cards that a selector means, or why it means none.</summary>
public abstract record Selection
{
    public sealed record Chosen(ImmutableArray<Gpu> Gpus) : Selection;

    public sealed record Unclear(string What, ImmutableArray<string> Evidence, string Hint) : Selection;

    /// <summary>Finds the cards.</summary>
    /// <param name="selector">An address, an index among the NVIDIA GPUs, <c>all</c>, or null: the only one.</param>
    public static Selection Of(Machine machine, string? selector)
    {
        var nvidia = machine.NvidiaGpus().ToImmutableArray();
        ImmutableArray<string> list = [.. machine.Gpus.Select(g => Line(g, nvidia.IndexOf(g)))];

        if (selector is null or "all" && nvidia is [])
        {
            return new Unclear(
                "there is no NVIDIA GPU in this machine", list,
                machine.Gpus is [] ? "the PCI bus shows no display device: lspci -nn tells what it does show"
                    : "name another maker's card with --gpu ADDRESS");
        }
        if (selector == "all" || (selector is null && nvidia is [_]))
            return new Chosen(nvidia);
        if (selector is null)
        {
            return new Unclear(
                $"there are {nvidia.Length} NVIDIA GPUs, and none was named", list,
                "name one with --gpu ADDRESS or --gpu INDEX, or take --gpu all");
        }
        if (int.TryParse(selector, NumberStyles.None, CultureInfo.InvariantCulture, out var index))
        {
            return index < nvidia.Length
                ? new Chosen([nvidia[index]])
                : new Unclear($"there is no NVIDIA GPU number {index}", list, "the numbers count from 0, by address");
        }
        if (!PciAddress.TryParseSlot(selector, out var address, out _))
        {
            return new Unclear(
                $"\"{selector}\" is neither an address, nor an index, nor \"all\"", list,
                "an address looks like 0000:05:00.0, 05:00.0 or 05:00");
        }
        return machine.Gpus.FirstOrDefault(g => g.Address.SharesSlotWith(address)) is { } gpu
            ? new Chosen([gpu])
            : new Unclear($"there is no GPU at {address.Slot}", list, "lspci -nn lists every device");
    }

    static string Line(Gpu gpu, int index)
    {
        var display = gpu.Display();
        return $"{(index < 0 ? "-" : index)}  {display.Address}  {display.Name ?? display.Id.ToString()}  driver={display.Owner.Driver}";
    }
}
