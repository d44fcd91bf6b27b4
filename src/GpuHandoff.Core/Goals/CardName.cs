using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>A card as a policy file names it: by address, by slot, or by NVIDIA's UUID.</summary>
/// <param name="Written">As it stands in the file.</param>
public sealed record CardName(string Written, PciAddress? Address, string? Uuid)
{
    public static CardName? Parse(string text) => PciAddress.TryParseSlot(text, out var address, out _)
        ? new(text, address, null)
        : IsUuid(text) ? new CardName(text, null, text) : null;

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

    // GPU-01234567-89ab-cdef-0123-456789abcdef, as nvidia-smi -L has it.
    static bool IsUuid(string text) => text.StartsWith("GPU-", StringComparison.Ordinal)
        && text[4..].Split('-') is [{ Length: 8 }, { Length: 4 }, { Length: 4 }, { Length: 4 }, { Length: 12 }]
        && text[4..].All(c => char.IsAsciiHexDigit(c) || c == '-');
}
