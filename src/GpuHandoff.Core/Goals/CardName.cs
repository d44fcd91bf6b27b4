using System.Text.RegularExpressions;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>A card as a policy file names it: by address, by slot, or by NVIDIA's UUID.</summary>
/// <param name="Written">As it stands in the file.</param>
public sealed partial record CardName(string Written, PciAddress? Address, string? Uuid)
{
    public static CardName? Parse(string text) => PciAddress.TryParseSlot(text, out var address, out _)
        ? new(text, address, null)
        : UuidForm.IsMatch(text) ? new CardName(text, null, text) : null;

    /// <summary>Two spellings of one card.</summary>
    public bool IsSame(CardName other) =>
        (Address is { } a && other.Address is { } b && a.SharesSlotWith(b))
        || (Uuid is not null && string.Equals(Uuid, other.Uuid, StringComparison.OrdinalIgnoreCase));

    public bool Means(Gpu gpu, Machine machine) => Address is { } address
        ? gpu.Address.SharesSlotWith(address)
        : string.Equals(Uuid, UuidOf(gpu, machine), StringComparison.OrdinalIgnoreCase);

    /// <summary>NVIDIA's driver tells it after the first open; while a VM has the card, only our record does.</summary>
    public static string? UuidOf(Gpu gpu, Machine machine) => gpu.Uuid ?? machine.HomeOf(gpu)?.Uuid;

    public override string ToString() => Written;

    [GeneratedRegex(@"\AGPU-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z")]
    static partial Regex UuidForm { get; }
}
